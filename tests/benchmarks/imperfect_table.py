"""How far each fault of a microscope moves the score of a slide: the table of the documentation.

usage: python tests/benchmarks/imperfect_table.py
       5 minutes on two cores
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import repository_path  # noqa: F401 - finds the helpers of the tests
from real_bundle import tile_bundle
from running_service import RunningService
from shared_data import shared

from edge_mil.cli import main as edge_mil
from edge_mil.demo.painted_slide import MPP, paint_slide
from edge_mil.demo.run import BUNDLE, DEFAULT_SEED, PAINTED_FIELD_PX
from edge_mil.demo.tiled_tiff import write_tiled_tiff

ALONE = {
    "stage off by 3 um": ("--jitter", "3"),
    "a tenth of the fields out of focus": ("--defocus", "0.1", "--seed", "1"),
    "corners 30 % darker": ("--vignette", "0.3"),
    "noise of 3 grey levels": ("--noise", "3"),
    "camera turned by 3 degrees": ("--rotation", "3"),
}
ALL = tuple(word for words in ALONE.values() for word in words)
ROWS = {**ALONE, "all of them": ALL}
LIMIT = 0.02
"""Largest difference of a probability (`docs/design/architecture.md`, "Tolerances")."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A slide, the service that scores it, and the options that it is always streamed with."""

    name: str
    slide: Path
    service: RunningService
    options: tuple[str, ...] = ()

    def stream(self, *options: str) -> dict[str, Any]:
        """Stream the slide and return what `edge-mil stream --json` prints."""
        out = io.StringIO()
        words = ["stream", self.slide, "--server", self.service.address, *self.options, *options]
        with contextlib.redirect_stdout(out):
            assert edge_mil([*map(str, words), "--json"]) == 0
        found: dict[str, Any] = json.loads(out.getvalue())
        return found


def real_subject(folder: Path) -> Subject:
    """Return a scanned slide with a real extractor and a seeded CLAM-SB head."""
    slide = shared("data/slides/cmu1_small_region.svs")
    service = RunningService(tile_bundle(folder), folder)
    # Small fields: of the 15 large ones a tenth may be none.
    return Subject("cmu1_small_region", slide, service, ("--fov", "640x480"))


def painted_subject(folder: Path, *, positive: bool) -> Subject:
    """Return a painted slide with the demo's bundle."""
    slide = folder / "painted.tiff"
    write_tiled_tiff(slide, paint_slide(DEFAULT_SEED, positive=positive).pixels, MPP)
    width, height = PAINTED_FIELD_PX
    name = f"painted, {'with' if positive else 'without'} foci"
    return Subject(name, slide, RunningService(BUNDLE, folder), ("--fov", f"{width}x{height}"))


def moved(found: dict[str, Any], clean: dict[str, Any]) -> float:
    """Return the largest difference of a probability."""
    pairs = zip(found["score"]["probabilities"], clean["score"]["probabilities"], strict=True)
    return max(abs(a - b) for a, b in pairs)


def rows(subject: Subject) -> None:
    """Print the rows of one subject."""
    clean = subject.stream()
    for name, options in {"nothing": (), **ROWS}.items():
        found = subject.stream(*options) if options else clean
        probability, verdicts = found["score"]["probabilities"][-1], found["fields"]
        said = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
        print(
            f"| {subject.name} | {name} | {probability:.4f} | {moved(found, clean):.4f} "
            f"| {found['instances']} | {said} |",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description="Stream slides through imperfect microscopes.").parse_args()
    print("| slide | wrong | probability | moved by | cells | fields |")
    print("| --- | --- | --- | --- | --- | --- |")
    for make in (
        real_subject,
        lambda folder: painted_subject(folder, positive=True),
        lambda folder: painted_subject(folder, positive=False),
    ):
        with tempfile.TemporaryDirectory(prefix="edge-mil-table-") as temporary:
            subject = make(Path(temporary))
            try:
                rows(subject)
            finally:
                subject.service.stop()


if __name__ == "__main__":
    main()
