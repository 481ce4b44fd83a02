"""Trace models to ONNX graphs, and compare each graph with its model.

`exported_aggregator` rebuilds a head from its checkpoint, and `head_graphs` cuts it where the bag
ends; `extractor_graph` exports an extractor with its preprocessing (`preprocess`) inside of the
graph. `tracing` calls torch's exporter, `graph_surgery` reads and changes graphs after it.
`whole_graph` exports a head as one graph, for the benchmark of costs.
"""
