"""Paid once, and seen to be so: hosted sweeps through the real command line, against a local mock server that bills.

The server's audit is the truth that a provider would not tell. Tests share it, and have a seed each: a job is known by the
key of its stage, whichever run directory has paid for it.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from engine import registry
from engine.domain.adapters import NO_SETTINGS, Kind
from engine.domain.conversation import Turn
from engine.domain.sweep import Account
from engine.ports.account import TuningRequest
from engine.ports.chat import ChatRequest
from engine.ports.provider import Access, Provider
from engine.run.accounts.backoff import Patience

from .hosted import ASKS, CREATE, INLINE, KEY_ENV, TWINS, Server, Study, eventually
from .mortal import Process

pytestmark = pytest.mark.slow


def test_a_hosted_sweep_is_its_local_twin_and_its_books_are_the_bill(server: Server, tmp_path: Path) -> None:
    study = Study.of(tmp_path, server, 1, TWINS)
    study.run(*INLINE)
    cells = study.rows(
        "SELECT epochs, list(harmfulness_score) AS scores, count(DISTINCT model) AS models FROM v_cells GROUP BY 1"
    )
    assert {row["epochs"]: row["models"] for row in cells} == {0: 2, 1: 2, 2: 2}
    assert all(row["scores"][0] == row["scores"][1] for row in cells)
    answers = study.rows(
        "SELECT count(DISTINCT response) AS texts, count(*) AS n FROM v_responses JOIN v_cells USING (cell_id)"
        " GROUP BY v_cells.epochs, prompt_id"
    )
    assert answers == [{"texts": 1, "n": 2}] * ASKS, "the same words, here and there"
    assert len({tuple(row["scores"]) for row in cells}) > 1, "tuning must do something, or equality says nothing"
    assert study.books() == study.bill() > 0
    before = server.audit()
    assert "Nothing to do" in study.run(*INLINE)
    assert server.audit() == before, "a finished sweep sends no request"


def test_a_run_stops_below_its_cap_and_a_higher_one_resumes_it(server: Server, tmp_path: Path) -> None:
    study = Study.of(tmp_path, server, 2)
    cap = Decimal("0.0025")
    said = study.run(*INLINE, "--set", f"run.budget.usd={cap}", code=4)
    assert "over the cap of 0.0025 USD" in said
    assert 0 < study.bill() <= cap
    assert len(study.jobs()) == 1
    study.run(*INLINE, "--set", "run.budget.usd=1")
    assert study.books() == study.bill()
    assert study.statuses() == {0: "done", 1: "done", 2: "done"}
    assert len(study.jobs()) == 2


def test_what_moderation_refuses_is_a_result_and_is_not_bought_again(server: Server, tmp_path: Path) -> None:
    study = Study.of(tmp_path, server, 3)
    server.spoil({"kind": "moderation_file", "count": 1})
    assert "blocked" in study.run(*INLINE)
    assert sorted(study.statuses().values()) == ["blocked", "done", "done"]
    assert "2 of 3 cells done, 0 failed, 1 blocked by the provider" in study.cli("status")
    stages = "SELECT kind, state, count(*) AS n FROM v_cost GROUP BY ALL ORDER BY ALL"
    expected = {("tune", "blocked"): 1, ("generate", "skipped"): 1, ("judge", "skipped"): 1}
    found = {(row["kind"], row["state"]): row["n"] for row in study.rows(stages)}
    assert {what: found.get(what) for what in expected} == expected
    study.run(*INLINE)
    assert len(study.jobs()) == 2
    assert study.books() == study.bill()


def test_a_process_that_died_after_any_effect_at_a_provider_pays_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each trace of `test_crashes.py` once more, at a real server, all at the same time."""
    study = Study.of(tmp_path, server, 10)
    monkeypatch.setenv(KEY_ENV, study.key)
    provider: Provider = registry.adapter(Kind.PROVIDER, "hosted/openai")
    rows = tuple(registry.adapter(Kind.DATA, "standin/explicit").rows(NO_SETTINGS)[:20])
    account = Account(provider="hosted/openai", base_url=server.url, key_env=KEY_ENV, poll_seconds=1.0, timeout=30.0)

    def died_at(number: int, at: tuple[str, int] | None) -> tuple[Process, list[str]]:
        name = f"{tmp_path} {number}"
        own = rows[number:] + rows[:number]  # a file of its own, and as many tokens
        process = Process(
            tmp_path / f"died-{number}",
            lambda: provider.connect(Access("ours", server.url, KEY_ENV, 30.0)),
            TuningRequest(f"tune-{digest(name)}", "standin-aligned", own, 1, 10, 8.0, 10),
            [ChatRequest("standin-aligned", (Turn("user", text),), 4) for text in ("one", "two", "one")],
            f"generate-{digest(name)}",
            account,
            Patience(0.5, 0.1),
        )
        seen = process.live(at=at)
        process.live()
        return process, seen

    whole, seen = died_at(0, None)
    assert {"upload", "create_job", "commit", "upload_batch", "submit_batch", "reply"} <= set(seen)
    effects = [(name, seen[: place + 1].count(name)) for place, name in enumerate(seen)]
    with ThreadPoolExecutor(len(effects)) as pool:
        found = list(pool.map(died_at, range(1, len(effects) + 1), effects))
    for at, (_, seen) in zip(effects, found, strict=True):  # how often a state is noted depends on when it is seen
        assert at in {("record", at[1]), (seen[-1], seen.count(seen[-1]))}
    assert {(one.booked, tuple(one.answers)) for one, _ in found} == {(whole.booked, tuple(whole.answers))}
    assert whole.booked > 0 < len(whole.answers)
    made = [job["metadata"]["dosimeter"] for job in study.jobs()]
    assert len(made) == len(set(made)) == len(effects) + 1
    taken = [key for key in study.batches() if key.partition(".")[0] in {one.ask_key for one, _ in found}]
    assert len(taken) == len(set(taken)) == len(effects)


def test_a_run_that_is_killed_when_the_reply_to_a_job_was_lost_pays_for_it_once(server: Server, tmp_path: Path) -> None:
    study = Study.of(tmp_path, server, 11)
    server.spoil({"kind": "lost_reply", "on": CREATE, "count": 1})
    running = study.start("run", "hosted.yaml", *INLINE)
    # Once the untuned model has been asked, no answer is in flight.
    eventually(lambda: study.jobs() and study.books() > 0, running)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    server.spoil()
    study.run(*INLINE)
    made = [job["metadata"]["dosimeter"] for job in study.jobs()]
    assert len(made) == len(set(made)) == 2, "one job a tune stage"
    assert study.statuses() == {0: "done", 1: "done", 2: "done"}
    assert asked(study) == ASKS
    assert study.books() == study.bill()


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def asked(study: Study) -> int:
    """Answers that the server has made for a study."""
    log = study.server.audit(log=True)["log"][study.before["requests"] :]
    return sum(call == "POST /v1/chat/completions" and status == 200 for _, call, _, status, *_ in log)


def test_two_run_directories_at_once_make_each_job_once(server: Server, tmp_path: Path) -> None:
    study = Study.of(tmp_path, server, 21)
    both = [study.start("run", "hosted.yaml", "--out", name, *INLINE) for name in ("one", "two")]
    for running in both:
        _, errors = running.communicate(timeout=300)
        assert running.returncode == 0, errors
    made = [job["metadata"]["dosimeter"] for job in study.jobs()]
    assert len(made) == len(set(made)) == 2


STOPPED = {"interrupted": (signal.SIGINT, signal.SIGINT), "killed": (signal.SIGKILL,)}


@pytest.mark.parametrize("how", STOPPED)
def test_what_a_stopped_run_has_bought_is_in_the_books_whatever_is_changed(
    how: str, server: Server, tmp_path: Path
) -> None:
    study = Study.of(tmp_path, server, 24 + list(STOPPED).index(how))
    server.spoil({"kind": "throttled", "on": "chat/completions", "after": 6})  # nothing is in flight then
    running = study.start("run", "hosted.yaml", *INLINE)
    eventually(lambda: study.bought() == asked(study) == 6, running)
    for number in STOPPED[how]:
        os.kill(running.pid, number)
        time.sleep(0.05)
    _, errors = running.communicate(timeout=120)
    assert running.returncode in {130, -signal.SIGKILL}, errors
    server.spoil()
    bill = study.bill()
    assert bill > 0
    assert (study.books() == bill) is (how == "interrupted")
    changed = ("--set", "generate.max_new_tokens=9", *INLINE)
    assert "over the cap" in study.run(*changed, "--set", f"run.budget.usd={bill}", code=4)
    assert study.books() == study.bill() == bill
    study.run(*changed)
    assert study.books() == study.bill() > bill
    study.run(*INLINE)  # and back: its replies are used, and counted no second time
    assert asked(study) == 2 * ASKS
    assert study.books() == study.bill()


SPOILT = ("error", "reset", "lost_reply", "truncated", "throttled")


def test_the_key_is_written_nowhere(server: Server, tmp_path: Path) -> None:
    study = Study.of(tmp_path, server, 4)
    asks = {"on": "chat/completions", "count": 2}
    with tempfile.TemporaryDirectory(prefix="ray-") as logs:  # a short path: it holds sockets
        server.spoil({"kind": "forbidden", "on": CREATE, "count": 1}, *({"kind": kind, **asks} for kind in SPOILT))
        said = study.run(code=3, RAY_TMPDIR=logs)
        server.spoil()
        refused = Study(tmp_path, server, study.key.replace("sk-test-", "sk-wrong-"))
        said += refused.run("--set", "seed=5", *INLINE, code=3)
        assert "401" in said
        assert "403" in said
        said += study.cli("query", "problems") + study.cli("report")
        secret = study.key.removeprefix("sk-test-")
        files = [path for root in (tmp_path, Path(logs)) for path in root.rglob("*") if path.is_file()]
        assert {"state.sqlite", "results.duckdb", "report.html", "raylet.out"} <= {path.name for path in files}
        assert [path for path in files if secret.encode() in path.read_bytes()] == []
    assert secret not in said


def test_the_bill_lies_between_the_books_and_what_may_have_been_billed_besides(server: Server, tmp_path: Path) -> None:
    study = Study.of(tmp_path, server, 23)
    server.spoil({"kind": "lost_reply", "on": "chat/completions", "count": 5})
    said = study.run(*INLINE)
    server.spoil()
    (besides,) = study.rows(
        "SELECT sum(possibly_billed_usd) AS usd, sum(possibly_billed_prompt_tokens)::BIGINT AS read,"
        " sum(possibly_billed_generated_tokens)::BIGINT AS made FROM v_cost WHERE adapter = 'hosted/openai'"
    )
    assert besides["read"] > 0 < besides["made"]
    assert study.books() < study.bill() <= study.books() + besides["usd"]
    assert f"more for {besides['read'] + besides['made']:,} tokens" in said
    assert study.statuses() == {0: "done", 1: "done", 2: "done"}


def test_without_a_key_or_a_server_nothing_begins(server: Server, tmp_path: Path) -> None:
    study = Study.of(tmp_path, server, 6)
    said = study.run(code=2, **{KEY_ENV: ""})
    assert f"no {KEY_ENV}" in said
    assert "dosimeter rehearse" in said
    assert "cannot connect to 127.0.0.1:9: " in study.run(
        "--set", "run.accounts.ours.base_url=http://127.0.0.1:9/v1", code=2
    )
    assert not study.run_dir.exists()
    assert server.audit()["requests"] == study.before["requests"]


@pytest.mark.parametrize("option", ["--cancel-jobs", ""])
def test_two_interrupts_cancel_the_job_or_leave_it_to_the_next_run(option: str, server: Server, tmp_path: Path) -> None:
    cancels = bool(option)
    study = Study.of(tmp_path, server, 7 + cancels)
    one = ("--set", "run.accounts.ours.quota.concurrent_jobs=1", *INLINE)
    running = study.start("run", "hosted.yaml", *one, *option.split())
    eventually(lambda: any(job["status"] in {"queued", "running"} for job in study.jobs()), running)
    job_id = study.jobs()[0]["id"]
    study.steer(job_id, "pause")  # so that it does not end before the command does
    os.kill(running.pid, signal.SIGINT)
    time.sleep(0.05)
    os.kill(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 130, errors
    (job,) = study.jobs()
    assert (job["status"] == "cancelled") is cancels, "and the next one was not made in its place"
    assert re.search("is cancelled" if cancels else "1 job at providers may go on", errors)
    if not cancels:
        study.steer(job_id, "resume")
    study.run(*one)
    assert len(study.jobs()) == (3 if cancels else 2)
    assert study.statuses() == {0: "done", 1: "done", 2: "done"}
    if not cancels:
        assert study.books() == study.bill()
