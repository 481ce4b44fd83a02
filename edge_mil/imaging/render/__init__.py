"""Draw small images of what was seen.

`thumbnail` makes a JPEG of one field; `mosaic_canvas` paints many fields, where they lie on the
stage, on one image of the slide.
"""
