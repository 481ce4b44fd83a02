from __future__ import annotations

import cv2
import numpy as np
from painted_field import painted

from edge_mil.imaging.collage import PAPER, collage
from edge_mil.imaging.thumbnail import thumbnail_jpeg
from edge_mil.types import Region

MPP = 0.5


def test_fields_lie_where_they_were_taken() -> None:
    slide = painted(640, 448)
    places = [(0, 0), (320, 0), (0, 224)]  # the fourth quarter was not visited
    pictures = [
        (
            thumbnail_jpeg(np.ascontiguousarray(slide[y : y + 224, x : x + 320])),
            Region(100 + x * MPP, 50 + y * MPP, 320 * MPP, 224 * MPP),
        )
        for x, y in places
    ]
    data, region = collage(pictures, 640)
    sheet = cv2.cvtColor(
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
    )
    assert (region.x_um, region.y_um) == (100, 50)
    assert (region.width_um, region.height_um) == (640 * MPP, 448 * MPP)
    assert sheet.shape == slide.shape
    assert np.abs(sheet[230:, 330:].astype(int) - PAPER).mean() < 2
    # Two JPEG passes and a shrunk picture between them.
    for x, y in places:
        seen = sheet[y + 8 : y + 216, x + 8 : x + 312].astype(int)
        assert np.abs(seen - slide[y + 8 : y + 216, x + 8 : x + 312]).mean() < 12
