"""Heads whose state has a fixed size: states of parts of a slide merge to the state of the whole.

`attention` is the online softmax that most heads share, `multihead` the same with learned
queries; `columnwise` pools by mean or maximum; `top_instance` keeps the instance with the largest
score; `dtfd` and `dtfd_top` pool pseudo-bags, `merged_tokens` also merges the least attended
instances. `pooled` is their common base: a pooled vector that a classifier reads.
"""
