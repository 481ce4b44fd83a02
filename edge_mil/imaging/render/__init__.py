"""Draw what people look at: the mosaic of the slide, thumbnails, and the colours of influence."""
