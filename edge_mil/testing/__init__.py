"""Stand-ins for tests, of this project and of its users: no microscope, GPU or service is needed.

Each behaves as the real thing does towards its caller, and a contract suite in `tests/contracts`
runs over both. Nothing that ships imports this package.
"""
