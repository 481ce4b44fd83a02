"""Measure how far an exported extractor moves slide scores.

`bags` splits tiles into those that calibrate and bags on which scores are compared (`generated`
paints tiles where there are no images, `stain_shift` changes their stain); `measuring` compares
FP32, FP16 and INT8 graphs with the original by the bundle's own head (`scoring`); `report` is
`fidelity.json`, and `page` the same for people.
"""
