"""Put the instances together: cells of the global grid, or slots of whole fields.

`cell_map` registers which cells are held; `assembly` cuts one field into cells; `pending` keeps the
pixels of cells that no single field covers; `replacement` decides when a sharper view replaces an
earlier one; `field_slots` does the same work for bundles whose instance is a whole field.
"""
