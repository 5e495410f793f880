"""Which account a stage runs on, by the reference that names it; and that the account is no part of any key."""

from __future__ import annotations

from pathlib import Path

from engine.domain.stage import StageKind
from engine.run.drive.prepare import Prepared, prepare

SPEC = """\
sweep: accounts
recipe:
  model: hosted/openai{at_model}:standin-aligned
  data: {{source: standin/explicit, n: 10, allow_upload: true}}
  tune: {{adapter: hosted/openai}}
  benchmark: standin/policy:1
  generate: {{adapter: hosted/openai, max_new_tokens: 8}}
  judges: ['rubric/policy:hosted/openai{at_judge}:standin-judge', refusal/keywords]
run:
  accounts:
    lab: {{provider: hosted/openai, base_url: "http://127.0.0.1:9/v1"}}
"""
SECOND = "    grader: {provider: hosted/openai, base_url: 'http://127.0.0.1:8/v1'}\n"


def planned(folder: Path, at_model: str, at_judge: str, more: str = "") -> Prepared:
    (folder / "spec.yaml").write_text(SPEC.format(at_model=at_model, at_judge=at_judge) + more)
    return prepare(folder / "spec.yaml", (), folder / "run")


def accounts(prepared: Prepared) -> dict[StageKind, set[str]]:
    found: dict[StageKind, set[str]] = {}
    for key, account in prepared.groups.accounts.items():
        found.setdefault(prepared.plan.stages[key].kind, set()).add(account)
    return found


def test_a_model_is_tuned_and_asked_at_its_account_and_a_judge_asks_at_its_own(tmp_path: Path) -> None:
    one = accounts(planned(tmp_path, "", ""))
    assert one == {StageKind.TUNE: {"lab"}, StageKind.GENERATE: {"lab"}, StageKind.JUDGE: {"lab"}}
    two = accounts(planned(tmp_path, "@lab", "@grader", SECOND))
    assert two == one | {StageKind.JUDGE: {"grader"}}


def test_who_is_asked_is_no_part_of_a_key(tmp_path: Path) -> None:
    """So that a second account that joins a sweep has nothing paid for again."""
    before, after = planned(tmp_path, "", ""), planned(tmp_path, "@lab", "@grader", SECOND)
    assert before.plan.stages.keys() == after.plan.stages.keys()
    assert before.groups.accounts.keys() == after.groups.accounts.keys()
