"""Keep engines on the disk of the device that they were built on.

`recipe` names what an engine is built from and derives its key; `engine_file` writes and verifies
one file; `cache` holds engines, and builds that failed, in one folder.
"""
