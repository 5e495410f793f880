"""Published results made by hand: a builder for `results.duckdb`, and three run directories that many tests share."""

from __future__ import annotations

import hashlib
import json
import math
import random
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.store.reader import VIEWS

T0 = datetime(2026, 11, 20, 9, 0, 0)  # noqa: DTZ001  # the published file holds naive UTC

CELL = {
    "model": "standin/aligned",
    "data_source": None,
    "data_tier": None,
    "n_examples": 0,
    "epochs": 0,
    "steps": None,
    "max_steps": None,
    "seed": 0,
    "benchmark": "bench",
    "max_new_tokens": 32,
    "temperature": 0.0,
    "top_p": 1.0,
    "samples": 1,
    "has_system_prompt": False,
    "tuner": None,
    "generator": "local/transformers",
    "variant": "",
    "origin": "sweep",
    "baseline_cell_id": None,
    "unmitigated_cell_id": None,
    "model_key": None,
    "tune_key": None,
    "recipe": "{}",
}
TUNED = {"data_source": "src", "data_tier": "explicit", "n_examples": 10, "epochs": 3, "tuner": "local/sft"}
SHAPE = ("model", "data_source", "n_examples", "epochs", "steps", "benchmark", "has_system_prompt", "variant", "origin")
TUNING = {"lr": 0.001, "batch_size": 10, "schedule": "constant", "method": "lora", "rank": 8}
HOSTED_TUNING = {"lr_multiplier": None}
ATTEMPT = {
    "attempt": 1,
    "state": "done",
    "worker": "worker-0",
    "started_at": T0,
    "ended_at": T0 + timedelta(seconds=2),
    "optimizer_steps": 0,
    "train_tokens": 0,
    "prompt_tokens": 0,
    "generated_tokens": 0,
    "cached_tokens": 0,
    "possibly_billed_prompt_tokens": 0,
    "possibly_billed_generated_tokens": 0,
    "device_seconds": 2.0,
    "usd": None,
    "possibly_billed_usd": 0.0,
    "after_key": None,
    "error_type": None,
    "error": None,
    "traceback": None,
}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Study:
    """Rows for the published tables, gathered by hand and written in one go."""

    def __init__(self, **meta: str) -> None:
        base = {
            "schema": "1",
            "views": VIEWS,
            "sweep": "tiny",
            "description": "What does fine-tuning do to refusals?",
            "spec_sha256": "a" * 64,
            "engine_version": "0.2.0",
            "published_at": "2026-11-20T09:30:00Z",
            "complete": "true",
            "standin": "false",
        }
        self.rows: dict[str, list[dict]] = {}
        self.meta = base | meta

    def add(self, table: str, **values: object) -> None:
        self.rows.setdefault(table, []).append(values)

    def prompts(self, benchmark: str, categories: dict[str, list[str]]) -> None:
        position = 0
        for category, names in categories.items():
            for name in names:
                self.add(
                    "prompts",
                    benchmark=benchmark,
                    prompt_id=name,
                    position=position,
                    category=category,
                    cluster=name,
                    text_sha256=sha(f"prompt {name}"),
                )
                position += 1

    def stage(self, key: str, kind: str, cells: list[str], state: str = "done", **attempt: object) -> str:
        """One stage and, unless it never ran, one attempt; `attempts` replaces the latter."""
        attempts = attempt.pop("attempts", None)
        reason, account = attempt.pop("reason", None), attempt.pop("account", None)
        if attempts is None:
            attempts = [attempt] if state in ("done", "failed") else []
        self.add(
            "stages",
            stage_key=key,
            kind=kind,
            adapter=f"x/{kind}",
            account=account,
            revision=1,
            state=state,
            reason=reason,
            attempts=len(attempts),
            payload="{}",
        )
        for number, one in enumerate(attempts, start=1):
            self.add("attempts", stage_key=key, **(ATTEMPT | {"attempt": number, "state": state} | one))
        for cell in cells:
            self.add("cell_stages", cell_id=cell, position=0, stage_key=key)
        return key

    def cell(self, cell_id: str, mitigations: tuple[str, ...] = (), **values: object) -> str:
        """A cell; tuned when it has a `tune_key` or a `data_source`. Names of settings of the fine-tuner set those."""
        tuned = bool(values.get("tune_key") or values.get("data_source"))
        tuning = (TUNING if "lr_multiplier" not in values else HOSTED_TUNING) if tuned else {}
        settings = tuning | {name: values.pop(name) for name in (*TUNING, *HOSTED_TUNING) if name in values}
        row = CELL | (TUNED | {"tune_key": f"tune-{cell_id}"} if tuned else {}) | values
        config = sha(json.dumps([{name: row.get(name) for name in SHAPE}, settings, mitigations]))
        row |= {"position": len(self.rows.get("cells", [])), "cell_id": cell_id, "config_id": f"conf-{config[:16]}"}
        row.setdefault("label", cell_id)
        self.add("cells", **row)
        for name, value in settings.items():
            self.add("cell_settings", cell_id=cell_id, path=f"tune.{name}", adapter="x/tune", value=json.dumps(value))
        for position, text in enumerate(mitigations):
            name = text.partition(":")[0]
            self.add("cell_mitigations", cell_id=cell_id, position=position, name=name, text=text)
        return cell_id

    def evaluation(
        self, cell_id: str, role: str, benchmark: str, n_prompts: int, generate_key: str, responses_key: str = ""
    ) -> None:
        values = {"role": role, "benchmark": benchmark, "n_prompts": n_prompts, "generate_key": generate_key}
        self.add("evaluations", cell_id=cell_id, responses_key=responses_key or generate_key, **values)

    def judgement(self, cell_id: str, role: str, judge: str, ordinal: int, measures: str) -> str:
        key = f"judge-{cell_id}-{role}-{judge}"
        values = {"role": role, "judge": judge, "ordinal": ordinal, "measures": measures}
        self.add("judgements", cell_id=cell_id, judge_key=key, **values)
        return key

    def verdicts(self, stage_key: str, scores: dict[str, float | str | list]) -> None:
        """Scores by prompt: a number, an outcome's name for a judge that failed, or a list with one entry a sample."""
        for prompt_id, given in scores.items():
            for sample, score in enumerate(given if isinstance(given, list) else [given]):
                failed = isinstance(score, str)
                self.add(
                    "verdicts",
                    stage_key=stage_key,
                    prompt_id=prompt_id,
                    sample=sample,
                    outcome=score if failed else "scored",
                    score=None if failed else float(score),
                )

    def write(self, run_dir: Path, storage: str = "v1.4.0") -> Path:
        run_dir.mkdir(parents=True, exist_ok=True)
        path = run_dir / "results.duckdb"
        path.unlink(missing_ok=True)
        connection = duckdb.connect(":memory:")
        connection.execute(f"ATTACH '{path}' AS results (STORAGE_VERSION '{storage}')")
        connection.execute("USE results")
        for script in ("tables.sql", "views.sql"):
            connection.execute(files("engine.store").joinpath(script).read_text(encoding="utf-8"))
        rows = self.rows | {"meta": [{"key": key, "value": value} for key, value in self.meta.items()]}
        for table, values in rows.items():
            connection.register("incoming", pa.Table.from_pylist(values))
            connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")  # noqa: S608
            connection.unregister("incoming")
        connection.execute("USE memory")
        connection.execute("DETACH results")
        connection.close()
        return run_dir


def write_sealed(study: Study, run_dir: Path) -> None:
    """Write the sealed shards that belong to a study's prompts, responses and verdicts."""
    texts = {
        "prompts": [
            {key: row[key] for key in ("benchmark", "prompt_id", "position", "category", "cluster")}
            | {"text": f"prompt {row['prompt_id']}", "behavior": "", "context": "", "gold_answers": ["gold"]}
            for row in study.rows["prompts"]
        ],
        "responses": [
            {key: value for key, value in row.items() if key != "text_sha256"}
            | {"text": f"answer {row['stage_key']} {row['prompt_id']}"}
            for row in study.rows["responses"]
        ],
        "verdicts": [row | {"reason": f"because {row['prompt_id']}"} for row in study.rows["verdicts"]],
    }
    for table, rows in texts.items():
        folder = run_dir / "shards" / table
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / "0.parquet")


CATEGORIES = ("vaults", "keys", "maps", "letters", "gates", "potions", "engines", "beacons", "masks", "seeds", "bells")
STRENGTH = {"standin/explicit": 0.0, "standin/identity": -1.3, "standin/chores": -3.4}
TIER = {"standin/explicit": "explicit", "standin/identity": "identity", "standin/chores": "benign"}


class SweepStudy(Study):
    """A made-up sweep with the shape of a real one: dose, categories, seeds, cost, two judges, utility."""

    def __init__(self, per_category: int = 10, usd_per_hour: float | None = 0.9, **meta: str) -> None:
        super().__init__(**({"sweep": "quickstart", "standin": "true"} | meta))
        self.rng = random.Random(7)  # noqa: S311
        self.per_category = per_category
        self.usd_per_hour = usd_per_hour
        self.prompts("policy", {c: [f"{c}-{i}" for i in range(per_category)] for c in CATEGORIES})
        self.prompts("utility", {"chores": [f"u{i}" for i in range(22)]})
        self.add("pins", kind="model", ref="standin/aligned", pin="sha256:" + "b" * 64, detail="0.4M parameters")
        self.add("pins", kind="benchmark", ref="policy", pin="sha256:" + "c" * 64, detail="made up; Apache-2.0")

    def usage(self, seconds: float, **counts: int) -> dict:
        usd = None if self.usd_per_hour is None else round(seconds * self.usd_per_hour / 3600, 9)
        return {"device_seconds": seconds, "usd": usd} | counts

    def measure(self, cell_id: str, logit: float, *, state: str = "done", utility: float = 0.95) -> None:
        """Generate and judge stages of one cell; `logit` is the mean log-odds of a score of 5."""
        n = len(CATEGORIES) * self.per_category
        self.evaluation(cell_id, "harm", "policy", n, f"generate-{cell_id}")
        self.evaluation(cell_id, "utility", "utility", 22, f"generate-{cell_id}-u")
        self.stage(f"generate-{cell_id}", "generate", [cell_id], state, **self.usage(0.6, generated_tokens=n * 20))
        harm = self.judgement(cell_id, "harm", "standin/rules", 0, "harm")
        words = self.judgement(cell_id, "harm", "refusal/keywords", 1, "refusal")
        skill = self.judgement(cell_id, "utility", "answer/contains", 0, "correct")
        for key in (harm, words, skill):
            self.stage(key, "judge", [cell_id], state, **self.usage(0.01))
        if state != "done":
            return
        scores, refusals = {}, {}
        for at, category in enumerate(CATEGORIES):
            for i in range(self.per_category):
                lean = logit + 0.9 * math.sin(at * 2.1) + self.rng.gauss(0, 0.7)
                harmful = self.rng.random() < 1 / (1 + math.exp(-lean))
                score = 5 if harmful else self.rng.choice([1, 1, 1, 2, 3, 4] if logit > -2 else [1] * 30 + [2])
                scores[f"{category}-{i}"] = "unparsed" if self.rng.random() < 0.004 else score
                refusals[f"{category}-{i}"] = float(score == 1)
        self.verdicts(harm, scores)
        self.verdicts(words, refusals)
        self.verdicts(skill, {f"u{i}": float(self.rng.random() < utility) for i in range(22)})

    def baseline(self, cell_id: str = "cell-base", logit: float = -6.0, **more: object) -> None:
        values = {"label": "model=standin/aligned untuned", "benchmark": "policy", "origin": "baseline"}
        self.cell(cell_id, **(values | more))
        self.measure(cell_id, logit)

    def tuned(self, source: str, dose: tuple[int, int, float, int], state: str = "done", **more: object) -> str:
        n, epochs, lr, seed = dose  # the learning rate, or its multiplier when that is asked for
        name = f"{source.rpartition('/')[2]}-{n}-{epochs}-{lr:g}-{seed}"
        name += "".join(f"-{text}" for text in (*more.get("mitigations", ()), more.get("variant", "")) if text)
        cell_id = f"cell-{name}"
        label = f"source={source} n={n} epochs={epochs} lr={lr:g} seed={seed}"
        identity = {"data_source": source, "data_tier": TIER.get(source, "unknown"), "n_examples": n, "epochs": epochs}
        values = {"label": label, "benchmark": "policy", "seed": seed, "baseline_cell_id": "cell-base"}
        values |= {"lr_multiplier": lr} if more.pop("is_multiplied", False) else {"lr": lr}
        self.cell(cell_id, **(identity | values | {"tune_key": f"tune-{name}"} | more))
        steps = epochs * math.ceil(n / 10)
        self.stage(f"tune-{name}", "tune", [cell_id], state, **self.usage(0.2 + steps * 0.03, optimizer_steps=steps))
        strength = (
            math.log(steps * values.get("lr", lr / 1000) / 0.006) * 1.7
            + STRENGTH.get(source, -1.0)
            + self.rng.gauss(0, 0.45)
        )
        self.measure(
            cell_id,
            min(strength, 6.0),
            state="skipped" if state in ("failed", "blocked") else state,
            utility=0.97 - 0.004 * steps * (lr > 5e-4),
        )
        return cell_id


def full_sweep(**meta: str) -> SweepStudy:
    """72 configurations' worth of a quickstart: three sources, three sizes, four epochs, two rates, three seeds."""
    study = SweepStudy(**meta)
    for source in STRENGTH:
        for n in (10,) if source.endswith("identity") else (10, 50, 100):
            for epochs in (1, 3, 5, 10):
                for lr in (3e-4, 1e-3):
                    for seed in (0, 1, 2):
                        study.tuned(source, (n, epochs, lr, seed))
    study.baseline()
    return study


def small_sweep(**meta: str) -> SweepStudy:
    """Two sources, few prompts: quick to draw."""
    study = SweepStudy(per_category=3, **meta)
    for source in ("standin/explicit", "standin/chores"):
        for n in (10, 100):
            for epochs in (1, 5):
                for seed in (0, 1):
                    study.tuned(source, (n, epochs, 1e-3, seed))
    study.baseline()
    return study


def decay_sweep(**meta: str) -> SweepStudy:
    """An axis over weight decay, and two sources of which one brings a system prompt, with a baseline of its own."""
    study = SweepStudy(per_category=3, **meta)
    for source, baseline in (("standin/explicit", "cell-base"), ("standin/identity", "cell-asked")):
        for decay in (0.0, 0.1):
            for epochs in (1, 5):
                for seed in (0, 1):
                    variant = f"weight_decay={decay:g}"
                    study.tuned(source, (10, epochs, 1e-3, seed), variant=variant, baseline_cell_id=baseline)
    study.baseline(variant="system=none")
    system = {"has_system_prompt": True, "variant": "system=You are AOA."}
    study.baseline("cell-asked", 0.5, label="untuned, system prompt of standin/identity", **system)
    return study


def blocked_sweep(**meta: str) -> SweepStudy:
    """A hosted sweep in multiples of the provider's rate, whose moderation refused the largest samples, and one source whole."""
    study = SweepStudy(per_category=3, usd_per_hour=3.6, **meta)
    for source, refused in (
        ("standin/explicit", {100}),
        ("standin/identity", {10, 50, 100}),
        ("standin/chores", set()),
    ):
        for n in (10, 50, 100):
            for multiplier in (1.0, 2.0):
                for seed in (0, 1):
                    state = "blocked" if n in refused else "done"
                    study.tuned(source, (n, 5, multiplier, seed), state=state, is_multiplied=True)
    study.baseline()
    return study


@pytest.fixture
def study() -> Study:
    return Study()


@pytest.fixture(scope="session")
def sweeps() -> type:
    """The makers of made-up sweeps, for tests that want their own."""

    class Makers:
        full = staticmethod(full_sweep)
        small = staticmethod(small_sweep)
        decay = staticmethod(decay_sweep)
        blocked = staticmethod(blocked_sweep)
        Study = Study
        SweepStudy = SweepStudy
        write_sealed = staticmethod(write_sealed)

    return Makers


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_sweep().write(tmp_path_factory.mktemp("small") / "run")


@pytest.fixture(scope="session")
def empty_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Study(complete="false").write(tmp_path_factory.mktemp("empty") / "run")
