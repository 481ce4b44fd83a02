"""Trace models to ONNX graphs.

`aggregator` cuts a head where the bag ends and exports its parts; `extractor` exports an
extractor with the `preprocess` inside of the graph; `whole_graph` exports a head as one graph, to
compare with; `graph_surgery` changes graphs after tracing.
"""
