"""The plans of the quickstart and of the chain, by heart: their counts, their pins, and a digest of every key.

A change here changes what has to run again, so the changelog says it. DOSIMETER_GOLDEN=write writes the files anew. Every process
has a hash seed of its own, so that the files also say that keys do not depend on it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from engine.run.drive.prepare import prepare

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", ["quickstart", "chain"])
def test_a_shipped_sweep_has_the_keys_that_it_had(name: str) -> None:
    golden = ROOT / "tests" / "golden" / f"{name}_plan.json"
    plan = prepare(ROOT / "sweeps" / f"{name}.yaml", (), ROOT / "no-such-run").plan
    found = {
        "counts": asdict(plan.counts),
        "stages": dict(sorted(Counter(stage.kind.value for stage in plan.stages.values()).items())),
        "pins": {f"{pin.kind} {pin.ref}": pin.pin for pin in plan.pins},
        "first_cell": {"label": plan.cells[0].label, "keys": list(plan.cells[0].stages)},
        "last_baseline": {"label": plan.cells[-1].label, "keys": list(plan.cells[-1].stages)},
        "all_keys_sha256": hashlib.sha256("\n".join(sorted(plan.stages)).encode()).hexdigest(),
    }
    if os.environ.get("DOSIMETER_GOLDEN") == "write":
        golden.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    assert found == json.loads(golden.read_text(encoding="utf-8"))
