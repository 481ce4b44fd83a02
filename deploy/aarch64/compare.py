"""Compare what two machines said of a slide: `compare.py HERE.json THERE.json`; 1: they differ."""

import json
import sys
from pathlib import Path

BOUND = 1e-4
"""Of the range, which is max(1, the largest |logit|) (`docs/design/architecture.md`,
"Tolerances")."""


def main() -> int:
    """Print both, and whether they agree."""
    here, there = (json.loads(Path(path).read_text(encoding="utf-8")) for path in sys.argv[1:3])
    for name, found in (("here", here), ("there", there)):
        versions = ", ".join(f"{what} {number}" for what, number in found["versions"].items())
        print(f"{name:<6}{found['machine']}: {versions}")
        print(
            f"      logits {found['score']['logits']}, {found['instances']} instances, "
            f"fields {found['fields']}, coverage {found['coverage']:.4f}"
        )
    logits = list(zip(here["score"]["logits"], there["score"]["logits"], strict=True))
    span = max(1.0, *(abs(a) for a, _ in logits))
    difference = max(abs(a - b) for a, b in logits) / span
    same = all(here[name] == there[name] for name in ("fields", "instances", "bundle", "coverage"))
    good = same and difference <= BOUND
    print(
        f"verdicts and instances {'the same' if same else 'DIFFER'}; "
        f"largest difference of a logit {difference:.1e} of the range (bound {BOUND:g}): "
        f"{'PASS' if good else 'FAIL'}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
