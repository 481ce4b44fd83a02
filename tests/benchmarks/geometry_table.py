"""How soon a session notices that its stage is wrong, and whether it ever accuses a good one.

usage: python tests/benchmarks/geometry_table.py faults   ../shared/data   20 faults: words, fields
       python tests/benchmarks/geometry_table.py clean    ../shared/data   200 runs of good stages
       python tests/benchmarks/geometry_table.py exchange ../shared/data   20 pairs of slides
       --part N/M: every Mth run from the Nth; 10 to 30 minutes each on two cores
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import repository_path  # noqa: F401 - finds the helpers of the tests
from small_bundle import write_small_bundle
from tiled_tiff import write_tiled_tiff

from edge_mil.bundle import open_bundle
from edge_mil.cameras import Imperfections, SlideFile, open_camera, parse_stage_faults
from edge_mil.cameras.virtual_microscope import VirtualMicroscope
from edge_mil.demo.painted_slide import MPP, paint_slide
from edge_mil.demo.run import BUNDLE
from edge_mil.pipeline import Model, load_model
from edge_mil.session import Session, SessionSettings
from edge_mil.session.geometry import Observation
from edge_mil.store import SessionFile
from edge_mil.types import CheckState, UInt8Array, Verdict

FAULTS = (
    ("x-flipped",),
    ("y-flipped",),
    ("x-flipped", "y-flipped"),
    ("exchanged",),
    ("exchanged", "x-flipped"),
    ("mirrored",),
    ("turned=90",),
    ("turned=5",),
    ("turned=2",),
    ("turned=1.5",),
    ("mpp=0.5",),
    ("mpp=2",),
    ("mpp=1.1",),
    ("mpp=1.04",),
    ("unit=1000",),
    ("unit=0.1",),
    ("late",),
    ("backlash=20",),
    ("objective=2@8",),
    ("objective=0.5@8",),
)
OVERLAPS = (0.1, 0.3, 0.0)
HAND_FIELDS = 40
FIELD_PX = (640, 480)
SMALL_FIELD_PX = (320, 240)
"""For slides of a thousand pixels: a field must be small against its slide."""
PAINTED_PX = (1600, 1200)
HELD_BACK_SEED = 100
"""Painted slides from here on were not used to choose thresholds."""
OTHER_MPP = 0.5
"""Pixel size that images without one are given."""


@dataclass(frozen=True, slots=True)
class Run:
    """One session.

    Attributes:
        cause: What it was accused of; "" for nothing.
        fields: Fields up to the accusation, or all.
        shown: Of these, fields with tissue that overlapped one from before `first`, or any earlier
            one where that is 0.
        state: State of the geometry at the end.
        slide_state: State of the slide at the end.
        history: Probability of the last class after each field; NaN without a score.
        verdicts: Counts.
        sentence: The words.
        outcomes: What pairs of fields said: counts of agrees, displaced and differs.
    """

    cause: str
    fields: int
    shown: int
    state: CheckState
    slide_state: CheckState
    history: tuple[float, ...]
    verdicts: Counter[str]
    sentence: str
    outcomes: Counter[str]


def read(camera: VirtualMicroscope, model: Model, *, until_noticed: bool, first: int = 0) -> Run:
    """Play a camera into a session of its own.

    Args:
        camera: The microscope.
        model: What scores it.
        until_noticed: End at the first accusation.
        first: Fields before the fault begins, which are not counted as shown.
    """
    settings = SessionSettings(
        mpp=camera.mpp,
        stage_affine=camera.stage_affine,
        area=camera.area,
        allow_enlargement=True,
    )
    verdicts: Counter[str] = Counter()
    seen: list[tuple[int, int]] = []
    fields = shown = 0
    cause = sentence = ""
    history: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        store = SessionFile(Path(temporary) / "session.db")
        session = Session(model, settings=settings, store=store)
        for frame in camera.frames():
            fields += 1
            shot = camera.shot_of(frame)
            answer = session.add(frame)
            verdicts[answer.verdict.name] += 1
            score = answer.score
            history.append(score.probabilities[-1] if score else float("nan"))
            overlaps = any(
                abs(shot.x - x) < camera.width_px and abs(shot.y - y) < camera.height_px
                for x, y in seen
            )
            shown += answer.verdict is not Verdict.BLANK and overlaps and fields > first
            if answer.verdict is not Verdict.BLANK and (not first or fields <= first):
                seen.append((shot.x, shot.y))
            status = session.status()
            found = next((c for c in (status.geometry, status.slide) if c.cause), None)
            if found is not None and not cause:
                cause, sentence = found.cause, found.sentence
                if until_noticed:
                    break
        status = session.status()
        store.flush()
        outcomes = Counter(
            pair.outcome.value
            for row in store.geometry()
            for pair in Observation.from_json(row.observation).pairs
        )
        session.release()
    camera.close()
    return Run(
        cause,
        fields,
        shown,
        status.geometry.state,
        status.slide.state,
        tuple(history),
        verdicts,
        sentence,
        outcomes,
    )


def microscope(slide: Path, words: Sequence[str] = (), **options: object) -> VirtualMicroscope:
    """Return a virtual microscope with faults of its stage."""
    camera = open_camera(str(slide), stage_faults=parse_stage_faults(words), **options)  # type: ignore[arg-type]
    assert isinstance(camera, VirtualMicroscope)
    return camera


def table_of_faults(data: Path, folder: Path, part: tuple[int, int]) -> None:
    """Print the table of faults, on a scanned and on a painted slide."""
    painted = folder / "painted.tiff"
    pixels = paint_slide(HELD_BACK_SEED, positive=True).pixels
    write_tiled_tiff(painted, pixels, mpp=MPP)
    # The demo's model knows painted tissue; on the scan its score only shows that a fault moves it.
    model = load_model(open_bundle(BUNDLE))
    subjects = (
        ("painted", painted),
        ("cmu1", data / "slides" / "cmu1_small_region.svs"),
    )
    print("| slide | path | overlap | fault | named | fields | of them overlapping | moved by |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    number = 0
    for name, slide in subjects:
        for path, overlap in (*(("serpentine", o) for o in OVERLAPS), ("hand", 0.1)):
            frames = HAND_FIELDS if path == "hand" else None
            options = {"fov": FIELD_PX, "overlap": overlap, "path": path, "frames": frames}
            clean: Run | None = None
            for words in FAULTS:
                number += 1
                if number % part[1] != part[0] % part[1]:
                    continue
                if clean is None:
                    clean = read(microscope(slide, **options), model, until_noticed=False)
                first = 7 if words[0].startswith("objective") else 0
                run = read(
                    microscope(slide, words, **options), model, until_noticed=True, first=first
                )
                # Against the good stage after as many fields.
                moved = abs(run.history[-1] - clean.history[run.fields - 1])
                print(
                    f"| {name} | {path} | {overlap:g} | {' '.join(words)} "
                    f"| {run.cause or run.state.value} | {run.fields} | {run.shown} "
                    f"| {moved:.3f} |",
                    flush=True,
                )


def images(data: Path) -> Iterator[tuple[str, UInt8Array]]:
    """Yield images that play slides: scans, camera fields and painted slides."""
    slide = SlideFile(data / "slides" / "cmu1_small_region.svs")
    yield "cmu1", slide.read(0, 0, slide.width_px, slide.height_px)
    slide.close()
    found = sorted((data / "osteosarcoma_he").rglob("*.jpg"))
    found += sorted((data / "breakhis_400x").rglob("*.*"))[::5]
    # Every sixth osteosarcoma field was used to choose thresholds.
    for number, path in enumerate(found):
        pixels = cv2.imread(str(path))
        if pixels is not None and (number % 6 or number >= 39):
            yield path.stem[:20], np.ascontiguousarray(pixels[:, :, ::-1])
    for seed in range(HELD_BACK_SEED, HELD_BACK_SEED + 12):
        width, height = PAINTED_PX
        painted = paint_slide(seed, positive=bool(seed % 2), width_px=width, height_px=height)
        yield f"painted {seed}", painted.pixels


def slides(data: Path, folder: Path) -> list[tuple[str, Path, tuple[int, int]]]:
    """Write the images as slides; return (name, file, size of a field)."""
    made = []
    for number, (name, pixels) in enumerate(images(data)):
        path = folder / f"{number}.tiff"
        write_tiled_tiff(path, pixels, mpp=OTHER_MPP)
        small = min(pixels.shape[:2]) < 3 * FIELD_PX[1]
        fov = SMALL_FIELD_PX if small else FIELD_PX
        if min(pixels.shape[:2]) < 2 * SMALL_FIELD_PX[1]:
            fov = (SMALL_FIELD_PX[0] // 2, SMALL_FIELD_PX[1] // 2)
        made.append((name, path, fov))
    return made


CLEAN = (
    ("perfect", 0.1, "serpentine", {}),
    ("perfect", 0.3, "random", {}),
    ("jitter 3", 0.1, "serpentine", {"jitter_um": 3.0}),
    ("jitter 3, noise 3", 0.2, "serpentine", {"jitter_um": 3.0, "noise": 3.0}),
    ("vignette, noise 2, turned by 3 as declared", 0.15, "serpentine",
     {"vignette": 0.3, "noise": 2.0, "rotation_deg": 3.0}),
    ("by hand, jitter 3", 0.1, "hand", {"jitter_um": 3.0}),
)  # fmt: skip
CLEAN_RUNS = 200


def table_of_clean(data: Path, folder: Path, part: tuple[int, int]) -> None:
    """Print how many good sessions were accused, and what was proven."""
    model = load_model(write_small_bundle(folder / "bundle", mpp=OTHER_MPP))
    runs = list(itertools.product(slides(data, folder), CLEAN))
    # Spread over slides and disturbances alike.
    chosen = np.random.default_rng(0).permutation(len(runs))[:CLEAN_RUNS]
    states: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    accused = []
    for number in sorted(chosen)[part[0] % part[1] :: part[1]]:
        (name, path, fov), (what, overlap, way, faults) = runs[number]
        camera = microscope(
            path,
            fov=fov,
            overlap=overlap,
            path=way,
            frames=HAND_FIELDS if way == "hand" else None,
            faults=Imperfections(seed=int(number), **faults) if faults else None,  # type: ignore[arg-type]
        )
        run = read(camera, model, until_noticed=False)
        states[run.state.value] += 1
        verdicts += run.verdicts
        outcomes += run.outcomes
        if run.outcomes["differs"] or run.outcomes["displaced"]:
            print(f"{name}, {what}: {dict(run.outcomes)}", flush=True)
        if run.cause:
            accused.append(f"{name}, {what}: {run.cause} after {run.fields}: {run.sentence}")
    print(f"runs {sum(states.values())}, accused {len(accused)}, geometry {dict(states)}")
    print(f"fields {dict(verdicts)}, pairs {dict(outcomes)}")
    print("\n".join(accused))


PAIRS = 20


def table_of_exchanges(data: Path, folder: Path, part: tuple[int, int]) -> None:
    """Print after how many overlapping fields an exchanged slide was noticed."""
    model = load_model(write_small_bundle(folder / "bundle", mpp=OTHER_MPP))
    made = slides(data, folder)
    print("| first | second | noticed | fields after | revisits | verdicts |")
    print("| --- | --- | --- | --- | --- | --- |")
    by_size: dict[tuple[int, int], list[tuple[str, Path, tuple[int, int]]]] = {}
    for slide in made:
        by_size.setdefault(slide[2], []).append(slide)
    pairs = [pair for same in by_size.values() for pair in itertools.pairwise(same)]
    order = np.random.default_rng(1).permutation(len(pairs))[:PAIRS]
    for number in order[part[0] % part[1] :: part[1]]:
        (name, path, fov), (other, second, _) = pairs[number]
        try:
            planned = microscope(path, fov=fov)
            half = len(planned.corners) // 2 + 1
            planned.close()
            camera = microscope(path, (f"slide={second}@{half}",), fov=fov)
        except Exception as error:
            print(f"| {name} | {other} | left out: {error} | | | |")
            continue
        run = read(camera, model, until_noticed=True, first=half - 1)
        after = run.fields - half + 1
        print(
            f"| {name} | {other} | {run.cause or run.slide_state.value} | {after} | {run.shown} "
            f"| {dict(run.verdicts)} |",
            flush=True,
        )


TABLES = {
    "faults": table_of_faults,
    "clean": table_of_clean,
    "exchange": table_of_exchanges,
}


def main() -> None:
    """Print the table that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("data", type=Path, metavar="DATA", help="../shared/data")
    parser.add_argument("--part", default="0/1", metavar="N/M", help="every Mth run from the Nth")
    arguments = parser.parse_args()
    first, _, of = arguments.part.partition("/")
    with tempfile.TemporaryDirectory(prefix="edge-mil-geometry-") as temporary:
        TABLES[arguments.table](arguments.data, Path(temporary), (int(first), int(of)))


if __name__ == "__main__":
    main()
