"""Bound what a session spends on searches over all shifts."""

from __future__ import annotations

MAX_CREDIT, AGREEING_CREDIT, FIELDS_PER_CREDIT = 16, 2, 8
"""Searches over all shifts (12 ms each) that a session may take: MAX_CREDIT at the beginning, more
for each field that agrees and for every so many fields, so that a session whose fields never
overlap pays for them once."""


def credit_after(credit: int, fields: int, searches: int, *, agrees: bool) -> int:
    """Return the searches that the next field may take.

    Args:
        credit: What this field might have taken.
        fields: Fields so far, with this one.
        searches: What it took.
        agrees: Whether it agreed with an earlier one.
    """
    earned = AGREEING_CREDIT * agrees + (fields % FIELDS_PER_CREDIT == 0)
    return max(0, min(MAX_CREDIT, credit - searches + earned))
