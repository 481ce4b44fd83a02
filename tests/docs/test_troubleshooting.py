"""docs/troubleshooting.md quotes sentences that the code really says."""

from __future__ import annotations

import ast
import re

from repository import ROOT, production_files

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")


def sentences() -> str:
    """Return all string literals of the two packages, pieces of one f-string joined."""
    found = []
    for path in production_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value for p in node.values if isinstance(p, ast.Constant))
                found.append("{}".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_every_quoted_part_of_a_sentence_is_in_the_code() -> None:
    quoted = re.findall(r'"([^"]+)"', re.sub(r"`[^`]*`", "", PAGE))
    quoted = [q for q in quoted if not (ROOT / "docs" / "heads.md").read_text().count(f"## {q}")]
    assert len(quoted) > 10
    said = sentences()
    assert [part for part in quoted if part not in said] == []


def test_every_row_names_a_symptom_a_cause_and_an_act() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "---" not in line]
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 3, row
        assert all(cells), row
