"""Build TensorRT engines, in a process of their own that may be killed.

`recipe` says what is built and under which key it is kept; `engine_builder` starts and bounds the
process, `build_process` is what runs in it, `progress` turns its reports into a share.
"""
