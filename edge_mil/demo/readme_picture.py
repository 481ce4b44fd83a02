"""Draw the README's picture: the steps to a score, and a real run of the demo, as one SVG."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edge_mil.errors import StoreError
from edge_mil.pages import page_templates
from edge_mil.session.report.charts import PlotArea, history_chart, influence_cells
from edge_mil.session.report.content import ReportContent

SLIDE_PX = 1000
"""Long side of the slide at most: twice the size that it is shown at, so the README loads soon."""
JPEG_QUALITY = 82

HISTORY_AREA = PlotArea(left=600, right=1176, top=172, floor=430)
"""Where the curves lie in `templates/picture.svg.j2`, which is 1200 x 500."""


def write_picture(report: ReportContent, path: Path) -> None:
    """Write the picture of a run: the steps above, slide and score below.

    Raises:
        StoreError: The file cannot be written.
    """
    picture = page_templates("edge_mil.demo").get_template("picture.svg.j2")
    text = picture.render(
        report=report,
        image=None if report.mosaic is None else _smaller(report.mosaic.image),
        heat=None if report.heat_map is None else influence_cells(report.heat_map),
        history=history_chart(report.history, HISTORY_AREA),
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"The picture cannot be written to {path} ({error.strerror}); name another file."
        ) from error


def _smaller(image: bytes) -> bytes:
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None or max(pixels.shape[:2]) <= SLIDE_PX:
        return image
    shrink = SLIDE_PX / max(pixels.shape[:2])
    small = cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
