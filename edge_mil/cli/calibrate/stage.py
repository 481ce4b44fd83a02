"""`edge-mil calibrate stage`: take over what a session's overlapping fields say of its stage."""

from __future__ import annotations

import argparse
import json
import math
import time

import numpy as np

from edge_mil.calibration import CalibrationFolder, OpticalPath, begin
from edge_mil.calibration.parts import PIXEL_SIZE
from edge_mil.cli.arguments import add_json, add_state, state_folder
from edge_mil.cli.console import print_table, print_text
from edge_mil.errors import CalibrationError
from edge_mil.session import SessionFolder
from edge_mil.session.geometry.log import GeometryLog
from edge_mil.session.geometry.stage_fit import StageFit
from edge_mil.types import check_mpp

NOT_BY_AN_AFFINE = {
    "late": "its positions are late by a field; read them after the exposure",
    "units": "its positions are in another unit; send them in micrometres",
    "positions": "its fields fit nowhere; check what the positions are",
    "stage": "no one setting explains its fields; check that the stage is referenced and settles",
    "backlash": "it has backlash; let the stage approach each position from one side",
}
"""Cause -> why no affine mends it, and what does."""

MAX_SCALE_ERROR, MAX_ROTATION_ERROR_DEG = 0.005, 0.25
"""Standard errors up to which scale and rotation are taken over: a quarter of their tolerances."""


def add_stage_verb(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of `calibrate stage`."""
    verb.add_argument("session", metavar="SESSION", help="an id from edge-mil session list")
    verb.add_argument(
        "--name", required=True, help="name of the calibration: letters, digits, . _ -"
    )
    add_state(verb)
    add_json(verb)
    verb.set_defaults(run=run_stage)


def run_stage(arguments: argparse.Namespace) -> int:
    """Write the pixel size and the stage affine that fit a session's fields into a calibration.

    Raises:
        CalibrationError: The session's fields do not tell them, or no affine mends the stage.
        SessionNotFoundError: There is no such session.
    """
    root = state_folder(arguments)
    folder = SessionFolder(root)
    summary, reader = folder.summary(arguments.session), folder.reader(arguments.session)
    settings = summary.settings
    log = GeometryLog(settings.mpp, insist=settings.insist_geometry)
    log.restore(row.observation for row in reader.geometry())
    fit = _usable(log)
    declared = settings.stage_affine or (settings.mpp, 0.0, 0.0, settings.mpp)
    affine = np.reshape(fit.matrix, (2, 2)) @ np.reshape(declared, (2, 2))
    a, b, c, d = (float(x) for x in affine.ravel())
    mpp = check_mpp(math.sqrt(abs(a * d - b * c)), "The pixel size by the session's fields")
    calibrations = CalibrationFolder(root)
    known = calibrations.find(arguments.name)
    assert fit.scale is not None
    assert fit.rotation_deg is not None
    calibration = begin(known, arguments.name, OpticalPath(), None).with_part(
        PIXEL_SIZE,
        time.time(),
        mpp=mpp,
        stage_affine=(a, b, c, d),
        figures={
            "stage_moves": float(fit.moves),
            "stage_scale": fit.scale.value,
            "stage_scale_error": fit.scale.error,
            "stage_rotation_deg": fit.rotation_deg.value,
            "stage_rotation_error_deg": fit.rotation_deg.error,
        },
    )
    calibrations.save(calibration)
    if arguments.json:
        print(
            json.dumps(
                {
                    "name": calibration.name,
                    "digest": calibration.digest,
                    "session": summary.session_id,
                    "mpp": mpp,
                    "stage_affine": [a, b, c, d],
                    "figures": dict(calibration.figures),
                }
            )
        )
        return 0
    print_text(
        f"{calibration.name}: pixel size {mpp:.4g} µm, camera turned by "
        f"{fit.rotation_deg.value:+.2f} degrees against what session {summary.session_id} declared."
    )
    rows = [(name, f"{value:.4g}") for name, value in sorted(calibration.figures.items())]
    print_table([*rows, ("camera px to stage µm", f"[{a:.5f} {b:.5f}; {c:.5f} {d:.5f}]")])
    print_text(
        f"Open the next session under it: edge-mil stream ... --calibration {calibration.name}"
    )
    return 0


def _usable(log: GeometryLog) -> StageFit:
    """Return the fit of a session's fields, where it tells an affine.

    Raises:
        CalibrationError: It does not; the message says what would.
    """
    cause = log.geometry.cause
    if cause in NOT_BY_AN_AFFINE:
        raise CalibrationError(
            f"No pixel size and rotation mend the stage of this session: {NOT_BY_AN_AFFINE[cause]}."
        )
    fit = log.fit_everything()
    scale, rotation = fit.scale, fit.rotation_deg
    if cause not in ("", "pixel-size", "rotation", "stretch"):
        raise CalibrationError(
            f"The axes of this session's stage are not those that were declared ({cause}): declare "
            "them, or measure them with edge-mil calibrate pixel-size."
        )
    if (
        scale is None
        or rotation is None
        or scale.error > MAX_SCALE_ERROR * scale.value
        or rotation.error > MAX_ROTATION_ERROR_DEG
    ):
        raise CalibrationError(
            f"{fit.moves} overlaps of this session do not tell pixel size and rotation well "
            "enough; read a session of a dozen fields with tissue that overlap by a third, with "
            "--insist-geometry where it is held, or run edge-mil calibrate pixel-size."
        )
    return fit
