"""Write the slide that the demo paints: `paint_demo_slide.py FILE.tiff`."""

import sys
from pathlib import Path

from edge_mil.demo.painted_slide import MPP, paint_slide
from edge_mil.demo.run import DEFAULT_SEED
from edge_mil.demo.tiled_tiff import write_tiled_tiff

write_tiled_tiff(Path(sys.argv[1]), paint_slide(DEFAULT_SEED, positive=True).pixels, MPP)
