"""PyTorch to bundles: read checkpoints, export graphs, quantise, compare. Needs torch."""
