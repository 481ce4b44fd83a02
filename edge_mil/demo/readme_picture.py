"""The picture of the README: what goes where, and a real run of the demo, as one SVG."""

from __future__ import annotations

import argparse
import html
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edge_mil.errors import EdgeMilError, StoreError
from edge_mil.session.report.charts import cells_svg
from edge_mil.session.report.page import ReportContent, data_url

WIDTH, HEIGHT = 1200, 500
SLIDE_PX = 1000
INK, SOFT, LINE, ORANGE = "#1d2733", "#5b6876", "#c9d1da", "#d94801"
STEPS = (
    ("microscope", "camera and stage, or a slide file"),
    ("gRPC", "raw fields, credits, one answer each"),
    ("places", "a global grid: each place counts once"),
    ("extractor", "ONNX, INT8 or FP32"),
    ("attention", "a commutative monoid in float64"),
    ("score", "live, durable, equal to batch"),
)


def draw_picture(content: ReportContent) -> str:
    """Return the picture of a run as SVG: the steps above, slide and score below."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, Segoe UI, DejaVu Sans, Arial, sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="14" fill="#fff" stroke="{LINE}"/>',
    ]
    parts += _steps()
    parts += _slide(content)
    parts += _score(content)
    return "".join(parts) + "</svg>\n"


def write_picture(content: ReportContent, path: Path) -> None:
    """Write the picture.

    Raises:
        StoreError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(draw_picture(content), encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"The picture cannot be written to {path} ({error.strerror}); name another file."
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and draw it: `python -m edge_mil.demo.readme_picture docs/picture.svg`."""
    from edge_mil.demo.run import DemoOptions, run_demo

    parser = argparse.ArgumentParser(description="Run the demo and draw the README's picture.")
    parser.add_argument("out", type=Path, nargs="?", default=Path("docs/picture.svg"))
    arguments = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = run_demo(DemoOptions(out=Path(folder)), sys.stderr)
        write_picture(result.content, arguments.out)
    except EdgeMilError as error:
        print(f"edge_mil.demo.readme_picture: {error}", file=sys.stderr)
        return 2
    print(arguments.out)
    return 0


def _steps() -> list[str]:
    gap, left, top, high = 14, 24, 22, 74
    wide = (WIDTH - 2 * left - gap * (len(STEPS) - 1)) / len(STEPS)
    parts = []
    for k, (name, line) in enumerate(STEPS):
        x = left + k * (wide + gap)
        last = k == len(STEPS) - 1
        parts.append(
            f'<rect x="{x:.1f}" y="{top}" width="{wide:.1f}" height="{high}" rx="9" '
            f'fill="{"#fff1e6" if last else "#f3f5f8"}" stroke="{ORANGE if last else LINE}"/>'
            f'<text x="{x + wide / 2:.1f}" y="{top + 29}" text-anchor="middle" font-size="17" '
            f'font-weight="700" fill="{INK}">{name}</text>'
        )
        words = line.split()
        half = min(
            range(1, len(words)),
            key=lambda n: max(len(" ".join(words[:n])), len(" ".join(words[n:]))),
        )
        for row, text in enumerate((" ".join(words[:half]), " ".join(words[half:]))):
            parts.append(
                f'<text x="{x + wide / 2:.1f}" y="{top + 47 + 15 * row}" text-anchor="middle" '
                f'font-size="11.5" fill="{SOFT}">{text}</text>'
            )
        if not last:
            at = x + wide
            parts.append(
                f'<path d="M{at + 2:.1f} {top + high / 2:.0f} h{gap - 5} m-5 -4 l5 4 l-5 4" '
                f'stroke="{SOFT}" stroke-width="1.6" fill="none"/>'
            )
    return parts


def _slide(content: ReportContent) -> list[str]:
    picture = content.picture
    if picture is None:
        return []
    left, top, high = 24, 122, 354
    region, image = picture.region, _smaller(picture.image)
    wide = min(560.0, high * region.width_um / region.height_um)
    parts = [
        f'<svg x="{left}" y="{top}" width="{wide:.1f}" height="{high}" '
        f'viewBox="{region.x_um:g} {region.y_um:g} {region.width_um:g} {region.height_um:g}" '
        'preserveAspectRatio="xMidYMid meet">',
        f'<image href="{data_url(image)}" x="{region.x_um:g}" y="{region.y_um:g}" '
        f'width="{region.width_um:g}" height="{region.height_um:g}" preserveAspectRatio="none"/>',
    ]
    if content.heat_map is not None:
        parts.append(cells_svg(content.heat_map))
    parts.append("</svg>")
    parts.append(
        f'<rect x="{left}" y="{top}" width="{wide:.1f}" height="{high}" fill="none" '
        f'stroke="{LINE}"/>'
    )
    return parts


def _smaller(image: bytes) -> bytes:
    """Return the picture at twice the size that it is shown at: a README loads in a moment."""
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None or max(pixels.shape[:2]) <= SLIDE_PX:
        return image
    shrink = SLIDE_PX / max(pixels.shape[:2])
    small = cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()


def _score(content: ReportContent) -> list[str]:
    left, right, top, bottom = 600, 1176, 172, 430
    value = content.history[-1].value if content.history else None
    name = html.escape(content.class_name)
    parts = [
        f'<text x="{left - 30}" y="146" font-size="17" font-weight="700" fill="{INK}">'
        f"{name} {'' if value is None else f'{value:.3f}'}</text>"
        f'<text x="{right}" y="146" text-anchor="end" font-size="13" fill="{SOFT}">coverage '
        f"{content.coverage:.0%}, {len(content.history)} fields, one slide of the demo</text>"
    ]

    def y(share: float) -> float:
        return bottom - (bottom - top) * share

    def x(k: int) -> float:
        return left + (right - left) * k / max(1, len(content.history) - 1)

    parts += [
        f'<line x1="{left}" x2="{right}" y1="{y(k / 4):.0f}" y2="{y(k / 4):.0f}" '
        f'stroke="#e3e7ec"/><text x="{left - 6}" y="{y(k / 4) + 4:.0f}" text-anchor="end" '
        f'font-size="12" fill="{SOFT}">{k / 4:.2f}</text>'
        for k in range(5)
    ]
    covered = " ".join(f"{x(k):.1f},{y(p.coverage):.1f}" for k, p in enumerate(content.history))
    parts.append(
        f'<polygon points="{left},{bottom} {covered} {right},{bottom}" fill="#dfe5ec" '
        'fill-opacity=".7"/>'
    )
    points = " ".join(
        f"{x(k):.1f},{y(p.value):.1f}" for k, p in enumerate(content.history) if p.value is not None
    )
    parts.append(
        f'<polyline points="{points}" fill="none" stroke="{ORANGE}" stroke-width="2.6" '
        'stroke-linejoin="round"/>'
    )
    parts.append(
        f'<rect x="{left}" y="452" width="20" height="3" fill="{ORANGE}"/>'
        f'<text x="{left + 26}" y="459" font-size="13" fill="{SOFT}">score of {name}</text>'
        f'<rect x="{left + 190}" y="448" width="20" height="11" fill="#dfe5ec"/>'
        f'<text x="{left + 216}" y="459" font-size="13" fill="{SOFT}">coverage of the tissue'
        f'</text><text x="{right}" y="459" text-anchor="end" font-size="13" fill="{SOFT}">'
        "fields in the order of arrival</text>"
    )
    return parts


if __name__ == "__main__":
    sys.exit(main())
