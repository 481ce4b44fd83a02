"""A session that the first release wrote is read, reported and gone on with."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

from painted_field import MPP, field, painted
from small_bundle import write_small_bundle

from edge_mil.pipeline import load_model
from edge_mil.session import SessionFolder, SessionSettings
from edge_mil.session.report.content import gather_report

SLIDE = painted()
FIRST = {"mpp", "mpp_source", "independent", "tissue", "slide_label", "labels"}
FIRST |= {"request_id", "request_digest"}
"""What settings the first release had."""


def make_old(path: Path) -> None:
    """Take out of a file what the first release did not have."""
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.executescript(
            """
            ALTER TABLE part DROP COLUMN sharpness;
            DROP TABLE attachment;
            DROP TABLE key_field;
            DROP TABLE located;
            DROP TABLE geometry;
            UPDATE instance SET note = '';
            PRAGMA user_version = 1;
            """
        )
        text = file.execute("SELECT value FROM meta WHERE name = 'settings'").fetchone()[0]
        settings = {name: value for name, value in json.loads(text).items() if name in FIRST}
        file.execute("UPDATE meta SET value = ? WHERE name = 'settings'", (json.dumps(settings),))
        file.commit()


def test_an_older_session_is_read_and_gone_on_with(tmp_path: Path) -> None:
    model = load_model(write_small_bundle(tmp_path / "b"))
    folder = SessionFolder(tmp_path / "state")
    session = folder.create(model, SessionSettings(mpp=MPP))
    before = session.add(field(SLIDE, 0, 0))
    sid = session.session_id
    session.release()
    make_old(folder.summary(sid).path)
    content = gather_report(folder.reader(sid), folder.summary(sid), model)
    assert content.score == before.score
    assert [layer.name for layer in content.layers] == ["coverage"]
    session = folder.open(sid, lambda _: model)
    assert session.score() == before.score
    # How sharply its cells were seen is not known, so they stay.
    assert session.add(field(SLIDE, 0, 0)).cells_improved == 0
    assert session.add(field(SLIDE, 192, 0)).cells_added > 0
    session.release()
    model.close()
