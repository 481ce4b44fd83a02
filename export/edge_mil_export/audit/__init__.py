"""Train heads on the algorithmic unit tests of Raff and Holt (2023, arXiv:2310.17867).

`unit_tests` draws the synthetic bags, `training` trains a head and gives a verdict, `references`
are two heads with known results, `table` prints (`docs/design/aggregators.md`, "The audit").
"""
