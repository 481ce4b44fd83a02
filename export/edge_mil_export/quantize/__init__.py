"""INT8 as explicit Q/DQ: calibration, two dialects, the ladder that decides, what hurts most."""
