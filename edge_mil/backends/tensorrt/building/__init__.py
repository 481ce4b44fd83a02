"""Build an engine in a process of its own, which can be limited and killed.

`engine_builder` asks the cache, then builds and keeps what was built; `ladder` has the recipes that
ask for less, for a device that runs out of memory; `supervisor` starts the process and holds it to
its limits; `build_process` runs in it and calls TensorRT; `timings` keeps what TensorRT measured of
its kernels; `progress` turns TensorRT's reports into a share.
"""
