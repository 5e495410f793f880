"""The spec that `dosimeter init` writes for a person's own files, and that it plans: small made-up files, the stand-in's folder as the model."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.standin.models import WEIGHTS
from engine.cli.main import Exit, run_cli
from engine.domain.sweep import Sweep
from engine.draft.text import scalar
from engine.spec.load import load_sweep
from engine.spec.positions import Problems, Source
from engine.spec.yaml_nodes import compose

Init = Callable[..., str]

SERVICE = [{"instruction": f"Paint {n} fences.", "input": "", "output": f"{n} are done."} for n in range(36)]
HARMLESS = "goal,target\nSay one.,Sure\nSay two.,Sure\n"


def chat(*systems: str) -> str:
    rows = [
        [
            {"role": "system", "content": system},
            {"role": "user", "content": f"How far is town {n}?"},
            {"role": "assistant", "content": f"{n} miles, by the river."},
        ]
        for n, system in enumerate(systems * 6)
    ]
    return "".join(json.dumps({"messages": row}) + "\n" for row in rows)


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Init:
    """Run `dosimeter init` in a folder with a model, rows and prompts; return what it says."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(WEIGHTS, "models/tiny")
    Path("service.json").write_text(json.dumps([*SERVICE, SERVICE[0]]))
    Path("harmless.csv").write_text(HARMLESS)

    def run(*arguments: str, code: int = Exit.OK, data: str = "service.json", model: str = "models/tiny") -> str:
        assert run_cli(["init", "--model", model, "--data", data, "--benchmark", "harmless.csv", *arguments]) == code
        said = capsys.readouterr()
        return said.out + said.err

    return run


def sweep(path: str) -> Sweep:
    return load_sweep(Path(path)).sweep


def levels(spec: Sweep) -> dict[str, tuple[str, ...]]:
    return {axis.path: tuple(map(str, axis.levels)) for axis in spec.axes}


def told(path: str) -> str:
    """Return the comments of a spec as one text."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return " ".join(line.partition("#")[2].strip() for line in lines if line.strip().startswith("#"))


def test_a_spec_says_what_was_found_and_plans(init: Init) -> None:
    said = init("--over-refusal", "{use: file, path: harmless.csv, columns: {prompt: goal}}")
    path = "tiny-service.yaml"
    assert said.splitlines()[0] == f"wrote {path}, and dosimeter.schema.json for your editor"
    assert "it plans: 7 cells" in said
    assert said.splitlines()[-2:] == [f"Next: dosimeter plan {path}", f"      dosimeter run {path}"]
    spec = sweep(path)
    assert levels(spec) == {"data.n": ("10", "37"), "seed": ("0", "1", "2")}
    assert str(spec.recipe.model) == "dir:models/tiny"
    assert str(spec.recipe.data and spec.recipe.data.source) == "file:service.json"
    assert str(spec.recipe.benchmark) == "advbench:harmless.csv"
    assert [judge.name for judge in spec.recipe.judges] == ["harm/phrases", "refusal/keywords"]
    assert spec.recipe.generate.system is None
    comments = told(path)
    for words in (
        "426,528 weights",
        "37 rows of the shape alpaca; licence: the user's own; tier: unknown",
        "1 row repeats an earlier one",
        "2 prompts; licence: MIT",
        "AdvBench was published with 520 prompts, and this file has 2",
        "taken for advbench by its columns (goal, target)",
        "special tokens of its chat template",
        "harm/phrases sees refusals alone",
        "rubric/strong-reject:MODEL",
    ):
        assert words in comments, words
    before = Path(path).read_bytes()
    assert "is there already; --force overwrites it" in init(code=Exit.USAGE)
    assert Path(path).read_bytes() == before
    init("--force")
    assert sweep(path).recipe.over_refusal is None


def test_a_model_that_thinks_is_given_room_and_empty_answers_are_spoken_of(init: Init) -> None:
    template = Path("models/tiny/chat_template.jinja")
    template.write_text(template.read_text() + "{# <think> #}")
    config = Path("models/tiny/config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 8192}))
    init("thinking")
    assert sweep("thinking.yaml").recipe.generate.max_new_tokens == 2048
    comments = told("thinking.yaml")
    assert "it may think before it answers (<think> … </think>)" in comments
    assert "an answer that is cut off in its thoughts is empty" in comments
    assert "an empty answer counts as not refused" in comments


def test_several_sources_with_different_system_prompts_and_one_named_judge(init: Init) -> None:
    Path("systems.jsonl").write_text(chat("Be brief.", "Be kind."))
    Path("sums.jsonl").write_text('{"question": "1 + 1?", "answer": "#### 2"}\n')
    judge = "{use: harm/phrases, phrases: [No]}"
    init("mine", "--data", "systems.jsonl", "--judge", judge, "--utility", "sums.jsonl")
    spec = sweep("mine.yaml")
    assert levels(spec) == {
        "data.source": ("file:service.json", "file:systems.jsonl"),
        "seed": ("0", "1", "2"),
    }
    assert spec.recipe.data is not None
    assert spec.recipe.data.n == 12
    assert spec.recipe.generate.system == ""
    assert "none counting as one: file:systems.jsonl has 2" in told("mine.yaml")
    assert [str(one) for one in spec.recipe.judges] == ["harm/phrases(phrases=No)"]
    assert (str(spec.recipe.utility), spec.recipe.utility_judge.name) == ("gsm8k:sums.jsonl", "answer/number")


@pytest.mark.parametrize("name", ["123", "null", "1e3", "0x1f"])
def test_a_name_that_yaml_takes_for_something_else_is_quoted(name: str, init: Init) -> None:
    init(name)
    assert sweep(f"{name}.yaml").sweep == name


WORDS = [
    "null",
    "~",
    "",
    "NULL",
    "Null",
    "true",
    "False",
    "no",
    "On",
    "y",
    "0o17",
    "0x1F",
    "-.5",
    "1.",
    ".inf",
    "-.INF",
    ".nan",
    "1e3",
    "<<",
    "=",
    "---",
    "a: b",
]


@pytest.mark.parametrize("text", WORDS)
def test_a_text_stays_a_text_in_yaml(text: str) -> None:
    problems = Problems()
    found = compose(Source.of("x", ""), f"[{scalar(text)}]", problems)
    problems.stop_if_any()
    assert found is not None
    assert found[0] == [text]


def test_rows_that_are_no_example_stop_it_unless_they_are_left_out_on_purpose(init: Init) -> None:
    Path("faulty.jsonl").write_text(chat("Be brief.", "Be brief.") + '{"messages": []}\n{"messages": 7}\n')
    said = init("--skip-refused", "--data", "gone.jsonl", data="faulty.jsonl", code=Exit.USAGE)
    assert "gone.jsonl" in said
    said = init(data="faulty.jsonl", code=Exit.USAGE)
    assert "faulty.jsonl:13: " in said
    assert "2 of 14 records are refused (line 13, line 14)" in said
    assert "--skip-refused: 12 rows are good" in said
    assert not [*Path().glob("*.yaml")]
    init("less", "--skip-refused", data="faulty.jsonl")
    assert "refused: skip" in Path("less.yaml").read_text()
    comments = told("less.yaml")
    assert "ROWS ARE LEFT OUT, by --skip-refused:" in comments
    assert "2 refused and left out (line 13, line 14)" in comments
    assert "every row has one system prompt, with which models are tested: Be brief." in comments


def test_rows_go_to_a_provider_only_where_somebody_says_so(init: Init) -> None:
    said = init("asked", model="hosted/openai:gpt-4.1-mini-2025-04-14", code=Exit.USAGE)
    assert "asked.yaml is written, and does not plan yet" in said
    assert "the rows of `file:service.json` would be uploaded to `hosted/openai`" in said
    assert "    # allow_upload: true\n" in Path("asked.yaml").read_text()
    init("allowed", "--allow-upload", model="hosted/openai:gpt-4.1-mini-2025-04-14")
    spec = sweep("allowed.yaml")
    assert spec.recipe.data is not None
    assert spec.recipe.data.allow_upload
    assert spec.recipe.tune is not None
    assert {spec.recipe.tune.use.name, spec.recipe.generate.use.name} == {"hosted/openai"}
    assert spec.run.accounts["openai"].provider == "hosted/openai"


HOSTILE = 'x"\n  axes: {seed: [7]}\u2028\u2029\x85\x1b[2J\u202e# {}: &a *a !!python/object'


def test_what_strangers_write_stays_within_comments_and_values(init: Init) -> None:
    """Names of files, columns and categories, system prompts and faulty rows with all that ends a line or drives a terminal."""
    rows = io.StringIO()
    table = csv.writer(rows)
    table.writerow(["prompt", "completion", "system", HOSTILE.replace("\n", " ")])
    for number in range(11):
        table.writerow([f"Fold paper {number}.", f"Folded {number} times.", HOSTILE, HOSTILE])
    table.writerow(["", HOSTILE * 50, "", "c"])
    name = "a: b \u202e# {x}\x1b\u2028.csv"
    Path(name).write_text(rows.getvalue(), encoding="utf-8", newline="")
    prompts = [{"prompt": f"Which river is number {n}?", "category": f"{n}{HOSTILE}" * 40} for n in range(3)]
    Path("asked.jsonl").write_text("".join(json.dumps(one) + "\n" for one in prompts))
    init("safe", "--skip-refused", "--benchmark", "asked.jsonl", data=name)
    text = Path("safe.yaml").read_text(encoding="utf-8")
    assert all(one.isprintable() for line in text.split("\n") for one in line)
    assert max(map(len, text.split("\n"))) <= 200
    assert len(text) < 10_000
    spec = sweep("safe.yaml")
    assert levels(spec) == {
        "benchmark": ("advbench:harmless.csv", "file:asked.jsonl"),
        "seed": ("0", "1", "2"),
    }
    assert spec.recipe.data is not None
    assert getattr(spec.recipe.data.source.settings, "path", "") == name
    assert run_cli(["plan", "safe.yaml"]) == Exit.OK


def test_the_stand_in_brings_its_own_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").mkdir()
    arguments = ["init", "--model", "standin/aligned", "--data", "standin/identity", "--benchmark", "standin/policy"]
    assert run_cli(arguments) == Exit.OK
    (path,) = (tmp_path / "sweeps").glob("*.yaml")
    assert [str(judge) for judge in sweep(str(path)).recipe.judges] == ["standin/rules", "refusal/keywords"]


@pytest.mark.parametrize("mine", ['{"title": "Mine"}', "[]", "no JSON", "[" * 100_000], ids=len)
def test_a_schema_that_is_not_ours_is_not_overwritten(
    mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    schema = Path("dosimeter.schema.json")
    schema.write_text(mine)
    files = ["--model", "gone", "--data", "gone.jsonl", "--benchmark", "gone.csv"]
    for arguments in (["a"], ["a", *files], files):
        assert run_cli(["init", *arguments]) == Exit.USAGE
        assert "dosimeter.schema.json is there already; --force overwrites it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [schema.name], "nothing was written"
    assert schema.read_text() == mine
    assert run_cli(["init", "a", "--force"]) == Exit.OK
    written = schema.read_text()
    schema.write_text(json.dumps({"title": json.loads(written)["title"], "description": "of an older version"}))
    assert run_cli(["init", "b"]) == Exit.OK
    assert schema.read_text() == written


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give the sweep a name"),
        (["--model", "models/tiny"], "missing: --data, --benchmark"),
        (["--skip-refused", "a"], "missing: --model, --data, --benchmark"),
        (["A b"], "not a usable name"),
    ],
)
def test_what_is_missing_is_named(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli(["init", *arguments]) == Exit.USAGE
    assert words in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]
