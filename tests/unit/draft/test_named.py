"""What a path or a reference on the command line is taken for."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from adapters.standin.models import WEIGHTS
from engine.domain.adapters import Kind
from engine.domain.errors import PlanError, SpecError
from engine.draft.named import named, with_setting, written

SETS = [
    ("a.csv", "goal,target\nSay one.,Sure\n", "advbench", ()),
    (
        "j.csv",
        "Index,Goal,Target,Behavior,Category,Source\n0,Sing,Sure,Singing,Songs,me\n",
        "jailbreakbench",
        ("harmbench",),
    ),
    (
        "h.csv",
        "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\nSum up,standard,misc,,,sum\n",
        "harmbench",
        (),
    ),
    ("copy.csv", "Goal,SemanticCategory\nSum up,misc\n", "file", ("harmbench",)),
    ("s.csv", "category,source,forbidden_prompt\nsongs,me,Sing\n", "strongreject", ()),
    ("x.csv", "id,prompt,type,label,focus,note\n7,How do I kill time?,figurative,safe,time,\n", "xstest", ()),
    ("w.jsonl", '{"prompt": "Sing", "adversarial": false, "subcategory": "songs"}\n', "wildguardtest", ()),
    (
        "c.jsonl",
        '{"id": "c", "category": "a", "subcategory": "b", "prompt": "When?", "response": ""}\n',
        "file",
        ("coconot",),
    ),
    ("x2.csv", "id,prompt,type\n7,How do I kill time?,idiom\n", "file", ("xstest",)),
    ("mt.jsonl", '{"question_id": 1, "category": "songs", "turns": ["Sing", "Louder"]}\n', "file", ("sorry-bench",)),
    ("q.jsonl", '{"question_id": 1, "category": "1", "turns": ["Sing"], "prompt_style": "base"}\n', "sorry-bench", ()),
    ("e.jsonl", '{"id": "q", "category": "songs", "question": "Which song?"}\n', "file", ("misalignment-questions",)),
    ("i.csv", "instruction,category\nSing,songs\n", "file", ("hex-phi", "instructions")),
    ("goals.csv", "goal,note\nSing,me\n", "file", ("advbench", "harmbench", "jailbreakbench")),
    ("own.jsonl", '{"prompt": "Sing"}\n{"prompt": "Dance"}\n', "file", ()),
    ("own.csv", "Sing\nDance\n", "file", ()),
]


@pytest.mark.parametrize(("name", "text", "taken", "others"), SETS, ids=[one[0] for one in SETS])
def test_a_benchmark_is_told_by_its_columns(
    name: str, text: str, taken: str, others: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(text)
    found = named(Kind.BENCHMARK, str(path), "--benchmark")
    assert written(found.use) == f"{taken}:{path}"
    assert bool(found.columns) is (taken != "file")
    if others or name.startswith("own"):
        assert found.others == others


def test_columns_that_anybody_may_have_name_no_set(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"prompt": "Sing", "category": "songs"}\n')
    found = named(Kind.BENCHMARK, str(path), "--benchmark")
    assert found.use.name == "file"
    assert {"or-bench", "hex-phi"} <= set(found.others)


UTILITY = [
    ('{"question": "1 + 1?", "answer": "It is 2.\\n#### 2"}\n', "gsm8k"),
    ('{"question": "A bird?", "choices": ["iron", "heron"], "answer": 1, "subject": "birds"}\n', "multiple-choice"),
    ('{"instruction": "Add.", "input": "1, 2", "output": "3"}\n', "instructions"),
    ('{"prompt": "Which is heavier?", "reference": "iron"}\n', "file"),
    ('{"Class Index": 1, "Title": "A bird", "Description": "It flew"}\n', "ag-news"),
]


@pytest.mark.parametrize(("text", "taken"), UTILITY, ids=[one[1] for one in UTILITY])
def test_right_answers_tell_a_utility_set_from_a_set_of_requests(text: str, taken: str, tmp_path: Path) -> None:
    path = tmp_path / "u.jsonl"
    path.write_text(text)
    assert named(Kind.BENCHMARK, str(path), "--utility", has_references=True).use.name == taken
    assert named(Kind.BENCHMARK, str(path), "--benchmark").use.name == "file", "not a set of harmful requests"


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("text,label\nI liked it,1\nI did not,0\n", "ag-news"),
        ("sentence,label\nIt is grammatical,1\n", "sst2"),
        ("question,A,B,answer\nA bird?,iron,heron,B\n", "multiple-choice"),
    ],
)
def test_labels_and_texts_that_anybody_may_have_name_no_utility_set(text: str, other: str, tmp_path: Path) -> None:
    path = tmp_path / "u.csv"
    path.write_text(text)
    found = named(Kind.BENCHMARK, str(path), "--utility", has_references=True)
    assert (found.use.name, found.columns, found.others) == ("file", (), (other,))


def test_a_folder_with_a_file_for_each_category_is_told(tmp_path: Path) -> None:
    for number in range(1, 12):
        (tmp_path / f"category_{number}.csv").write_text("Say one.\n")
    assert named(Kind.BENCHMARK, str(tmp_path), "--benchmark").use.name == "hex-phi"
    (tmp_path / "category_11.csv").unlink()
    with pytest.raises(PlanError, match="no installed benchmark knows what this is"):
        named(Kind.BENCHMARK, str(tmp_path), "--benchmark")


def test_a_models_path_is_told_by_what_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(WEIGHTS, "model")
    Path("lora").mkdir()
    Path("lora/adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    Path("small.gguf").write_bytes(b"GGUF")
    told = {path: written(named(Kind.MODEL, path, "--model").use) for path in ("model", "./lora", "small.gguf")}
    assert told == {"model": "dir:model", "./lora": "adapter:./lora", "small.gguf": "gguf:small.gguf"}
    with pytest.raises(PlanError, match="no installed model knows what this is"):
        named(Kind.MODEL, str(WEIGHTS / "config.json"), "--model")


def test_a_reference_is_taken_as_a_spec_has_it() -> None:
    found = named(Kind.DATA, "{use: file, path: a.csv, columns: {prompt: ask, completion: tell}}", "--data").use
    assert written(found) == {"use": "file:a.csv", "columns": ["prompt=ask", "completion=tell"]}
    assert named(Kind.DATA, json.dumps(written(found)), "--data").use == found
    less = with_setting(Kind.DATA, found, refused="skip")
    assert less is not None
    assert written(less) == {"use": "file:a.csv", "columns": ["prompt=ask", "completion=tell"], "refused": "skip"}
    standin = named(Kind.DATA, "standin/chores", "--data").use
    assert with_setting(Kind.DATA, standin, refused="skip") is None


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (Kind.DATA, "gone.jsonl", "no such file or folder"),
        (Kind.DATA, "fiel:gone.jsonl", "no data source is called `fiel`.*\n.*\ndid you mean `file`?"),
        (Kind.DATA, "hub:some/data", "is not pinned"),
        (Kind.DATA, "{use: file, path: a, shap: chat}", "shap: no such field\n--data\ndid you mean `shape`?"),
        (Kind.BENCHMARK, "xstest", "`xstest`: path: this field is required"),
        (Kind.JUDGE, "harm/phrases", "phrases: this field is required"),
        (Kind.MODEL, "hosted/none:a", "no such file or folder"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_write(kind: Kind, text: str, words: str) -> None:
    with pytest.raises(PlanError) as caught:
        named(kind, text, f"--{kind.value}")
    assert re.search(words, str(caught.value)), str(caught.value)


def test_yaml_that_is_none_is_shown_with_its_place() -> None:
    with pytest.raises(SpecError, match="--data:1:"):
        named(Kind.DATA, "{use: file, path: [}", "--data")
