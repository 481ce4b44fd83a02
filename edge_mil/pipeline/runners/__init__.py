"""Run the extractor on whatever this device has.

`variants` lists the pairs of backend and precision that a bundle could run as; `verification`
checks one against the bundle's fidelity tiles; `fallback` takes the next one when a check fails;
`runner` runs tiles and can be switched between two fields; `autotune` measures every variant and
`tuned_choice` remembers the fastest that is within the bundle's bound.
"""
