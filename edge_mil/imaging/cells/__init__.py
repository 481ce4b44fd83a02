"""From aligned fields to instances: cells of the global grid, or slots of whole fields.

A field's pixels and its stage position go in; tiles for the extractor come out, one for each cell
that the field completes or shows more sharply. `cell_map` holds the state of every cell and
`assembly` computes what one field adds to it; `pending` keeps the pixels of incomplete cells and
`replacement` decides when a sharper view replaces an earlier one. `field_slots` does the same work
for bundles whose instance is a whole field. Both maps compute with `plan` and change with `commit`.
"""
