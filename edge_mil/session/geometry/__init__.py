"""Compare what a session takes for granted of its stage with what overlapping fields show.

Each field brings its `Evidence`: where the stage says that it lies, and how it fits the fields
around it. `GeometryLog` keeps the evidence, as rows of the session's file, and says what follows
from it; a session that is restored folds the same rows and has the same state to the bit
(`docs/design/imaging.md`, "Geometry").

| step | file |
| --- | --- |
| what one field says, and its stored form | `evidence.py` |
| the affine and the backlash that fit the overlapping fields, with their errors | `stage_fit.py` |
| name the cause of a contradiction, and the setting that mends it | `causes.py` |
| which fields contradict the stage, and what explains them all | `contradictions.py` |
| whether it is still the slide of the beginning | `continuity.py` |
| keep the evidence; the state of both checks | `log.py` |
| the same of a stored session | `stored.py` |
"""

from edge_mil.session.geometry.evidence import Evidence
from edge_mil.session.geometry.log import GeometryLog

__all__ = ["Evidence", "GeometryLog"]
