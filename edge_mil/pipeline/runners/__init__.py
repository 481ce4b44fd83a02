"""Run the extractor on whatever this device has.

A bundle's extractor and a backend go in, a verified runner comes out. `variants` is the table of
backends, precisions and graphs; `runner` loads one variant, runs tiles, and switches from one
runner to another between two fields; `verification` compares a runner with FP32 on the bundle's
fidelity tiles; `fallback` takes the first variant that holds the bound; `autotune` measures every
variant and `tuned_choice` remembers the fastest.
"""
