"""Build an engine in a process of its own, which can be limited and killed.

`engine_builder` asks the cache, then starts the process, watches it and keeps what it wrote;
`build_process` runs in it and calls TensorRT; `progress` turns TensorRT's reports into a share.
"""
