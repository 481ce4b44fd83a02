"""Print what a session says of twelve lamps and lights, with and without a calibration.

    python tests/benchmarks/gates/light_table.py ../shared/data [--fields 6]

The real slide and a painted one are read by a session under the demo's bundle, through the virtual
microscope with a camera file.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sources import SUPPORT

import edge_mil.demo
from edge_mil.bundle import open_bundle
from edge_mil.calibration import Calibration
from edge_mil.cameras import CameraFile, Imperfections, ScanPlan, SlideFile, VirtualMicroscope
from edge_mil.demo.painted_slide import paint_slide
from edge_mil.pipeline import Model, load_model
from edge_mil.session import Session
from edge_mil.types import Verdict

GLASS = (243.0, 243.0, 243.0)
"""Background of a calibration on this microscope's own clean glass."""

LIGHTS = {
    "clean": CameraFile(),
    "lamp 80 %": CameraFile(lamp=0.8),
    "lamp 60 %": CameraFile(lamp=0.6),
    "lamp 40 %": CameraFile(lamp=0.4),
    "lamp 20 %": CameraFile(lamp=0.2),
    "warm": CameraFile(lamp_colour=(1.0, 0.95, 0.75)),
    "cold": CameraFile(lamp_colour=(0.75, 0.9, 1.0)),
    "gradient": CameraFile(gradient=0.5),
    "negative": CameraFile(negative=True),
    "fluorescence": CameraFile(fluorescence=True),
    "one channel": CameraFile(channels="green"),
    "exchanged": CameraFile(channels="bgr"),
    "saturated glass": CameraFile(lamp=1.15),
}


def read(model: Model, slide: Path, light: CameraFile, calibrated: bool, fields: int) -> str:
    """Return the cell of one light: when it was refused, what was counted, and the state."""
    faults = None if light == CameraFile() else Imperfections(camera=light)
    microscope = VirtualMicroscope(SlideFile(slide), ScanPlan(frames=fields), faults=faults)
    background = Calibration("glass", mpp=microscope.mpp, background=GLASS, measured={})
    mpp = None if calibrated else microscope.mpp
    first, verdicts = 0, Counter[Verdict]()
    with Session(model, mpp, calibration=background if calibrated else None) as session:
        for number, frame in enumerate(microscope.frames(), 1):
            verdict = session.add(frame).verdict
            verdicts[verdict] += 1
            if not first and verdict in (Verdict.WRONG_LIGHT, Verdict.SATURATED):
                first = number
        status = session.status()
    microscope.close()
    said = ", ".join(f"{count} {verdict.name}" for verdict, count in verdicts.most_common())
    refused = f"from field {first}" if first else "never"
    return f"refused {refused} ({said}); {status.instances} instances; {status.light}"


def slides(data: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the real slide and a painted one."""
    sys.path.append(str(SUPPORT))
    from tiled_tiff import write_tiled_tiff

    yield "cmu1", data / "slides" / "cmu1_small_region.svs"
    pixels = paint_slide(2, positive=True).pixels
    yield "painted", write_tiled_tiff(folder / "painted.tiff", pixels, 0.5)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--fields", type=int, default=6)
    given = parser.parse_args()
    model = load_model(open_bundle(Path(edge_mil.demo.__file__).parent / "bundle"))
    with tempfile.TemporaryDirectory() as folder:
        for name, slide in slides(given.data, Path(folder)):
            for light, camera in LIGHTS.items():
                for calibrated in (False, True):
                    row = read(model, slide, camera, calibrated, given.fields)
                    kind = "calibrated" if calibrated else "nominal"
                    print(f"{name:8} {light:16} {kind:10} {row}", flush=True)
    model.close()


if __name__ == "__main__":
    main()
