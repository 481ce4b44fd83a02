"""A slide file is read by several threads, and closed under none of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from painted_field import painted
from tiled_tiff import write_tiled_tiff

from edge_mil.cameras import SlideFile
from edge_mil.errors import SourceError


def test_closing_waits_for_readers_and_later_reads_are_errors(tmp_path: Path) -> None:
    path = write_tiled_tiff(tmp_path / "slide.tiff", painted(2048, 2048), 0.5)
    for _ in range(5):
        slide = SlideFile(path)
        with ThreadPoolExecutor(4) as pool:
            reads = [pool.submit(slide.read, 0, 0, 2048, 2048) for _ in range(24)]
            reads[0].result()
            slide.close()
            ends = [read.exception() for read in reads]
        assert not any(end for end in ends if not isinstance(end, SourceError))
    with pytest.raises(SourceError, match="was closed"):
        slide.read(0, 0, 64, 64)
