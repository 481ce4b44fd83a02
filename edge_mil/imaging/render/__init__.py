"""Draw what people look at: the mosaic of a slide, and a thumbnail of each accepted field."""
