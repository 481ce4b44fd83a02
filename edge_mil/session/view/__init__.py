"""Answer questions about a session, from any thread, while it goes on.

`queries` is what a session offers; `influence` computes what each field and cell does to the score;
`mosaic_view` paints the slide as far as it was seen; `layers` lays numbers of cells out as grids;
`records` holds the values that are returned.
"""
