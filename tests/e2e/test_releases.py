"""A run folder of every released version is read and goes on: nothing that it has is trained, asked or paid for again.

`DOSIMETER_GOLDEN=write pytest tests/e2e/test_releases.py` makes and keeps one of this version, in about a minute.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from adapters.hosted.rehearsal.backend.process import ModelProcess
from adapters.hosted.rehearsal.server import serving
from adapters.hosted.rehearsal.settings import ServerSettings
from adapters.hosted.rehearsal.standin import backend
from adapters.hosted.rehearsal.state.account import StartProcess
from engine.cli.serve_verb import tools
from engine.domain.cost import Usage
from engine.domain.results import Finish, Response, TrainingStep
from engine.ports import GenerateTask, TrainingRun, Tuned
from engine.store.layout import RunDirectory
from tests.unit.store.frozen import KEPT, keep, take_out

from .hosted import CREATE, INLINE, KEY_ENV, Server, Study, eventually

pytestmark = pytest.mark.slow

SPEC = """\
sweep: hosted
description: What a run of this version leaves, with a job in every state.
recipe:
  model: standin/aligned
  data: {{source: standin/explicit, n: 10, allow_upload: true}}
  tune: {{use: local/sft, batch_size: 10}}
  benchmark: standin/policy:1
  generate: {{use: local/transformers, max_new_tokens: 8}}
  judges: [standin/rules, refusal/keywords]
zip:
  - model: {models}
    tune.use: {tuners}
    tune.epochs: {epochs}
    tune.lr: {lrs}
    tune.rank: {ranks}
    tune.lr_multiplier: {multipliers}
    generate.use: {generators}
    mitigations: {mitigations}
run:
  keep_weights: true
  resources: {{hosts: 1, usd_per_device_hour: 0.36}}
  accounts:
    ours: {{provider: hosted/openai, base_url: "{url}", key_env: {key_env}, poll_seconds: 0.2, timeout: 240}}
"""
LOCAL = (
    (1, []),
    (2, []),
    (2, [{"use": "mix", "source": "standin/refusals", "n": 5}, {"use": "scale", "factor": 0.5}]),
    (2, [{"use": "output-filter", "guard": "standin/rules", "threshold": 4}]),
)
"""Epochs and mitigations of the cells that are tuned here: stages of every kind."""

TRAINED = 3
"""Tune stages of these cells."""

DONE, BLOCKED, FAILED, CANCELLED, ASKED, RUNNING, WAITING, LOST, NEVER = range(1, 10)
"""Epochs of the hosted cells, by what became of their job; of `LOST` and `NEVER` only the intent to make it is known."""

PLANNED = (DONE, BLOCKED, FAILED, RUNNING, WAITING)
BASELINES = 2
PROMPTS, REPLIES = 11, 6
"""Of a cell, and those of them that `ASKED` has a reply to."""


def spec(url: str, hosted: tuple[int, ...], *, local: bool = True) -> str:
    """The sweep, with some of its hosted cells."""
    here = LOCAL if local else ()
    n, there = len(here), len(hosted)
    columns = {
        "models": ["standin/aligned"] * n + ["hosted/openai:standin-aligned"] * there,
        "tuners": ["local/sft"] * n + ["hosted/openai"] * there,
        "generators": ["local/transformers"] * n + ["hosted/openai"] * there,
        "epochs": [epochs for epochs, _ in here] + list(hosted),
        "lrs": [8e-3] * n + [None] * there,
        "ranks": [1] * n + [None] * there,
        "multipliers": [None] * n + [8.0] * there,
        "mitigations": [mitigations for _, mitigations in here] + [[]] * there,
    }
    written = {name: json.dumps(values) for name, values in columns.items()}  # JSON is YAML
    return SPEC.format(url=url, key_env=KEY_ENV, **written)


class Instant(ModelProcess):
    """Answers and trains at once, and nothing."""

    async def ask(self, task: GenerateTask) -> list[Response]:
        return [Response("0", sample, "a word", Finish.STOP, 5, 2) for sample in range(task.decoding.samples)]

    async def train(self, run: TrainingRun) -> Tuned:
        last = run.checkpoints[0].length.in_steps(1)
        return Tuned([TrainingStep(step, step, 1.0, 1e-3) for step in range(1, last + 1)], Usage())


@contextmanager
def served(folder: Path, process: StartProcess = ModelProcess) -> Iterator[Study]:
    """A sweep's folder, with a server that keeps what it has in there."""
    durations = {"run": (600.0, 900.0)}  # 2 to 3 seconds: long enough to be met under way
    pace = 300.0 if process is ModelProcess else 100_000.0
    settings = {"folder": folder / "server", "time_scale": pace, "durations": durations}
    with serving(ServerSettings.model_validate(settings), backend(tools()), process=process) as url:
        server = Server(url)
        yield Study(folder, server, before=server.audit())


class Making:
    """Makes a run, one state of a job after another."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def run(self, *hosted: int, local: bool = False, **options: Any) -> str:
        self._write(hosted, local=local)
        return self._study.run(*INLINE, **options)

    def stop(
        self, hosted: tuple[int, ...], when: Callable[[], object], *signals: signal.Signals, local: bool = False
    ) -> None:
        """Run it, and stop the command as soon as something is so; its job is paused first."""
        self._write(hosted, local=local)
        running = self._study.start(
            "run", "hosted.yaml", *INLINE, *(["--cancel-jobs"] if hosted == (CANCELLED,) else [])
        )
        eventually(when, running)
        for number in signals:
            os.killpg(running.pid, number)
            time.sleep(0.05)
        running.communicate(timeout=120)

    def paused(self, *states: str) -> bool:
        """Pause the newest job once the provider shows it in one of these states."""
        jobs = [job for job in self._study.server.audit()["jobs"] if job["status"] in states]
        for job in jobs:
            self._study.steer(job["id"], "pause")
        return bool(jobs)

    def _write(self, hosted: tuple[int, ...], *, local: bool) -> None:
        (self._study.folder / "hosted.yaml").write_text(spec(self._study.server.url, hosted, local=local))


def make(study: Study) -> None:
    """Leave a run with a job in every state."""
    making, server, kill = Making(study), study.server, signal.SIGKILL
    making.run(DONE, local=True)
    making.stop((CANCELLED,), lambda: making.paused("queued", "running"), signal.SIGINT, signal.SIGINT)
    server.spoil({"kind": "reset", "on": CREATE})
    making.stop((NEVER,), lambda: intents(study) == 1, kill)
    server.spoil({"kind": "stall", "on": CREATE, "seconds": 60.0, "count": 1})
    making.stop((LOST,), lambda: making.paused("queued", "running"), kill)
    server.spoil({"kind": "throttled", "on": "chat/completions", "after": REPLIES})
    making.stop((ASKED,), lambda: study.bought() == REPLIES, kill)
    server.spoil()
    making.stop((RUNNING,), lambda: "running" in study.records("jobs", "state") and making.paused("running"), kill)
    making.stop((WAITING,), lambda: making.paused("queued"), kill)
    server.spoil({"kind": "moderation_file", "count": 1})
    making.run(BLOCKED)
    server.spoil({"kind": "job_error"})
    making.stop(PLANNED, lambda: "failed" in states(study), signal.SIGINT, signal.SIGINT, local=True)


def intents(study: Study) -> int:
    """Jobs that were to be made, and of which nothing else is known."""
    records = [json.loads(path.read_text()) for path in (study.run_dir / "jobs").glob("*.json")]
    return sum(not record["job_id"] and not record["state"] for record in records)


def states(study: Study) -> Counter[str]:
    with closing(sqlite3.connect(f"{(study.run_dir / 'state.sqlite').as_uri()}?mode=ro", uri=True)) as db:
        return Counter(state for (state,) in db.execute("SELECT state FROM stages WHERE planned"))


def lay_out(place: Path, folder: Path) -> None:
    """Put a kept run, and what its provider had, into a folder, as if its jobs had been made a moment ago."""
    take_out(place, folder / "runs" / "hosted")
    memory = json.loads((place / "server.json").read_text())
    for job in memory["jobs"]:
        job["created_at"] = time.time() - 60.0
    for weights in memory["tuned"].values():
        (folder / "server" / "weights" / weights).mkdir(parents=True)
    (folder / "server" / "memory.json").write_text(json.dumps(memory))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep a run of this version, where that is asked for."""
    place = KEPT / metadata.version("dosimeter")
    if os.environ.get("DOSIMETER_GOLDEN") != "write" or place.exists():
        return
    folder = tmp_path_factory.mktemp("kept")
    with served(folder) as study:
        make(study)
    keep(RunDirectory(study.run_dir), place)
    shutil.copyfile(folder / "server" / "memory.json", place / "server.json")


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("version", sorted({path.name for path in KEPT.glob("*")} | {metadata.version("dosimeter")}))
def test_it_goes_on_and_nothing_is_trained_asked_or_paid_for_again(version: str, tmp_path: Path) -> None:
    lay_out(KEPT / version, tmp_path)
    with served(tmp_path, Instant) as study:
        done = attempts(study, "done")
        paid, jobs = study.books(), {job["id"] for job in study.server.audit()["jobs"]}
        assert 0 < paid == Decimal(study.before["pico_dollars"]).scaleb(-12)
        for job in study.server.audit()["jobs"]:
            if job["status"] == "paused":
                study.steer(job["id"], "resume")
        every = (DONE, BLOCKED, FAILED, CANCELLED, ASKED, RUNNING, WAITING, LOST, NEVER)
        (tmp_path / "hosted.yaml").write_text(spec(study.server.url, every))
        longer = json.loads(study.cli("plan", "hosted.yaml", "--json", "--set", "generate.max_new_tokens=9"))
        study.run(*INLINE)
        new = [job for job in study.server.audit()["jobs"] if job["id"] not in jobs]
        assert len(new) == len({FAILED, CANCELLED, NEVER}), "only what left nothing is made again"
        asked = study.server.audit(log=True)["log"]
        answered = sum(call == "POST /v1/chat/completions" and status == 200 for _, call, _, status, *_ in asked)
        assert answered == PROMPTS * len(every) - PROMPTS * len({DONE, BLOCKED}) - REPLIES
        assert set(study.records("jobs", "state")) == {"succeeded", "blocked"}
        assert study.books() == Decimal(study.server.audit()["pico_dollars"]).scaleb(-12) > paid
        assert done.items() <= attempts(study, "done").items(), "what was done has no further attempt"
        statuses = Counter(row["status"] for row in study.rows("SELECT status FROM v_cells"))
        assert statuses == {"done": len(LOCAL) + len(every) - 1 + BASELINES, "blocked": 1}
    kinds = {entry["kind"]: entry["new"] for entry in longer["forecast"]["kinds"]}
    again = len(every) - len({DONE, ASKED})  # weights that are kept are asked, not trained again
    assert kinds["tune"] == again + TRAINED, "`local/sft` has a higher revision since 0.2.0"


def attempts(study: Study, state: str) -> dict[str, int]:
    """How often each stage was tried that stands so."""
    with closing(sqlite3.connect(f"{(study.run_dir / 'state.sqlite').as_uri()}?mode=ro", uri=True)) as db:
        return dict(db.execute("SELECT stage_key, attempts FROM stages WHERE state = ?", (state,)))
