"""The quickstart's plan, by heart: its counts, its pins, and a digest of every key.

A change here changes what has to run again, so the changelog says it. DOSIMETER_GOLDEN=write writes the file anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from engine.run.drive.prepare import prepare

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "quickstart_plan.json"


def test_the_quickstart_has_the_keys_that_it_had() -> None:
    plan = prepare(ROOT / "sweeps" / "quickstart.yaml", (), ROOT / "no-such-run").plan
    keys = sorted(plan.stages)
    found = {
        "counts": asdict(plan.counts),
        "stages": dict(sorted(Counter(stage.kind.value for stage in plan.stages.values()).items())),
        "pins": {f"{pin.kind} {pin.ref}": pin.pin for pin in plan.pins},
        "first_cell": {"label": plan.cells[0].label, "keys": list(plan.cells[0].stage_keys())},
        "last_baseline": {"label": plan.cells[-1].label, "keys": list(plan.cells[-1].stage_keys())},
        "all_keys_sha256": hashlib.sha256("\n".join(keys).encode()).hexdigest(),
    }
    if os.environ.get("DOSIMETER_GOLDEN") == "write":
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(GOLDEN.read_text())
