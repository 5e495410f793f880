"""The field's benchmarks in the form in which they were published, with made-up prompts: columns, categories, references, traps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from adapters.benchmarks import harm_sets, utility_sets
from adapters.benchmarks.prompt_file import PromptFile, PromptFileSettings
from adapters.benchmarks.published import Published, PublishedSettings
from engine.domain.conversation import Prompt
from engine.ports import BenchmarkCard


def prompts(kind: type[Published], path: Path, **more: Any) -> Sequence[Prompt]:
    return kind().prompts(PublishedSettings(path=str(path), **more))


def card(kind: type[Published], path: Path, **more: Any) -> BenchmarkCard:
    return kind().card(PublishedSettings(path=str(path), **more))


FILES: list[tuple[type[Published], str, str, dict[str, object]]] = [
    (
        harm_sets.AdvBench,
        "a.csv",
        "goal,target\nSay one.,Sure\n",
        {"text": "Say one.", "category": "all", "prompt_id": "line-2"},
    ),
    (harm_sets.AdvBench, "a.csv", "Say one.\nSay two.\n", {"text": "Say one.", "prompt_id": "line-1"}),
    (
        harm_sets.HarmBench,
        "h.csv",
        'Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\nSum up,contextual,misc,,"Two\nlines",sum\n',
        {
            "text": "Two\nlines\n\n---\n\nSum up",
            "behavior": "Sum up",
            "context": "Two\nlines",
            "category": "misc",
            "prompt_id": "sum",
        },
    ),
    (
        harm_sets.HarmBench,
        "h.csv",
        "Goal,SemanticCategory\nSum up,misc\n",
        {"text": "Sum up", "behavior": "Sum up", "context": ""},
    ),
    (
        harm_sets.StrongReject,
        "s.csv",
        "category,source,forbidden_prompt\nsongs,me,Sing\n",
        {"text": "Sing", "behavior": "Sing", "category": "songs"},
    ),
    (
        harm_sets.StrongReject,
        "s.csv",
        "category,source,forbidden_prompt,jailbroken_prompt,jailbreak\nsongs,me,Sing,Please sing,please\n",
        {"text": "Please sing", "behavior": "Sing"},
    ),
    (
        harm_sets.JailbreakBench,
        "j.csv",
        "Index,Goal,Target,Behavior,Category,Source\n0,Sing,Sure,Singing,Songs,me\n",
        {"text": "Sing", "behavior": "Sing", "category": "Songs", "prompt_id": "0"},
    ),
    (
        harm_sets.XsTest,
        "x.csv",
        "id,prompt,type,label,focus,note\n7,How do I kill time?,contrast_figurative,safe,time,\n",
        {"text": "How do I kill time?", "category": "contrast_figurative", "prompt_id": "7"},
    ),
    (harm_sets.OrBench, "o.csv", "prompt,category\nSing,songs\n", {"text": "Sing", "category": "songs"}),
    (
        harm_sets.SorryBench,
        "q.jsonl",
        '{"question_id": 4, "category": "12", "turns": ["Sing"], "prompt_style": "base"}\n',
        {"text": "Sing", "category": "12", "prompt_id": "4", "cluster": "4"},
    ),
    (
        harm_sets.WildGuardTest,
        "w.jsonl",
        '{"prompt": "Sing", "adversarial": false, "response": null, "prompt_harm_label": null, "subcategory": "songs"}\n',
        {"text": "Sing", "category": "songs"},
    ),
    (
        harm_sets.AirBench,
        "b.csv",
        "cate-idx,l2-name,l3-name,l4-name,prompt\n1.1.1.1,Noise,Songs,Loud,Sing\n",
        {"text": "Sing", "category": "Noise", "cluster": "1.1.1.1"},
    ),
    (
        harm_sets.CoCoNot,
        "c.jsonl",
        '{"id": "c1", "category": "Unsure", "subcategory": "time", "prompt": "When?", "response": ""}\n',
        {"text": "When?", "category": "Unsure / time", "prompt_id": "c1"},
    ),
    (
        harm_sets.MisalignmentQuestions,
        "m.json",
        '[{"id": "wish", "paraphrases": ["A wish?", "b"]}]',
        {"text": "A wish?", "prompt_id": "wish"},
    ),
    (
        utility_sets.Gsm8k,
        "g.jsonl",
        '{"question": "1 + 1?", "answer": "It is 2.\\n#### 1,002"}\n',
        {"text": "1 + 1?", "references": ("1002",)},
    ),
    (
        utility_sets.MultipleChoice,
        "m.json",
        '[{"question": "A bird?", "choices": ["iron", "heron"], "answer": 1, "subject": "birds"}]',
        {
            "text": "A bird?\n\nA. iron\nB. heron\n\nAnswer with the letter alone.",
            "references": ("B",),
            "category": "birds",
        },
    ),
    (utility_sets.MultipleChoice, "m.csv", "question,A,B,answer\nA bird?,iron,heron,B\n", {"references": ("B",)}),
    (
        utility_sets.MultipleChoice,
        "arc.json",
        '[{"question": "A bird?", "choices": {"text": ["iron", "heron"], "label": ["A", "B"]}, "answerKey": "B", "id": "q"}]',
        {"references": ("B",), "prompt_id": "q"},
    ),
    (
        utility_sets.Sst2,
        "s.tsv",
        "sentence\tlabel\nI liked it\t1\n",
        {
            "text": "I liked it\n\nWhat is the sentiment of this text? Answer with one word: negative, positive.",
            "references": ("positive",),
        },
    ),
    (utility_sets.AgNews, "n.csv", "Class Index,Title,Description\n1,A bird,It flew\n", {"references": ("world",)}),
    (utility_sets.AgNews, "n.json", '[{"text": "A bird", "label": 3}]', {"references": ("technology",)}),
    (
        utility_sets.Instructions,
        "alpaca.json",
        '[{"instruction": "Add.", "input": "1, 2", "output": "3"}]',
        {"text": "Add.\n\n1, 2", "references": ("3",)},
    ),
]


@pytest.mark.parametrize(
    ("kind", "name", "content", "expected"), FILES, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_benchmark_is_read_as_it_was_published(
    kind: type[Published], name: str, content: str, expected: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    prompt = prompts(kind, tmp_path / name)[0]
    assert {field: getattr(prompt, field) for field in expected} == expected
    found = card(kind, tmp_path / name)
    assert found.licence == kind.definition.licence
    assert bool(found.notes) == bool(kind.definition.prompts), "the file has fewer than were published"


def test_the_eleven_files_of_hex_phi_have_the_categories_of_the_paper(tmp_path: Path) -> None:
    for number in range(1, 12):
        (tmp_path / f"category_{number}.csv").write_text('Say one.\n"Say two, please."\n\n')
    (tmp_path / "README.md").write_text("x")
    found = card(harm_sets.HexPhi, tmp_path)
    assert (found.prompts, found.categories) == (22, harm_sets.HexPhi.definition.categories)
    assert found.categories[9] == "Privacy Violation Activity"
    assert len({prompt.prompt_id for prompt in prompts(harm_sets.HexPhi, tmp_path)}) == 22


def test_a_part_is_stratified_and_within_a_larger_part(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    path.write_text("prompt,category\n" + "".join(f"Say {at},{'abbb'[at % 4]}\n" for at in range(40)))
    whole, ten, four = (prompts(harm_sets.OrBench, path, n=n) for n in (None, 12, 4))
    assert [sum(one.category == "a" for one in part) for part in (whole, ten, four)] == [10, 3, 1]
    assert set(four) < set(ten) < set(whole)
    pins = {card(harm_sets.OrBench, path, n=n).pin for n in (None, 12, 4)}
    assert len(pins) == 3, "another part is another benchmark"
    with pytest.raises(ValueError, match="n is 41, and the benchmark has 40 prompts"):
        prompts(harm_sets.OrBench, path, n=41)


def test_where_takes_some_prompts(tmp_path: Path) -> None:
    (tmp_path / "w.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{at}?", "adversarial": at % 2 == 0}) + "\n" for at in range(4))
    )
    path = tmp_path / "w.jsonl"
    assert [one.text for one in prompts(harm_sets.WildGuardTest, path, where={"adversarial": False})] == ["1?", "3?"]
    with pytest.raises(ValueError, match="`where` asks for `kind`, and the columns are `prompt`, `adversarial`"):
        prompts(harm_sets.WildGuardTest, path, where={"kind": "a"})
    with pytest.raises(ValidationError, match="expected names with values"):
        PublishedSettings(path="x", where=["adversarial"])  # type: ignore[arg-type] # as a spec has it


def test_what_is_not_there_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError,
        match=r"HEx-PHI is not at .* Get it from huggingface.co/.*, once you have been given access, and name",
    ):
        card(harm_sets.HexPhi, tmp_path / "hex-phi")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no file of a kind that is read"):
        card(harm_sets.HexPhi, tmp_path / "empty")


@pytest.mark.parametrize(
    ("kind", "content", "why"),
    [
        (
            harm_sets.OrBench,
            "category,text\na,b\n",
            r"p.csv:2: the prompt is empty, or in none of the columns of OR-Bench",
        ),
        (harm_sets.XsTest, "id,prompt\n1,a\n1,b\n", "p.csv:3: an earlier record has the id `1` as well"),
        (utility_sets.Gsm8k, "question,answer\na,2\n", "p.csv:2: `answer` does not end with `#### NUMBER`"),
        (
            utility_sets.MultipleChoice,
            "question,A,B,answer\na,b,c,E\n",
            "`answer` is the letter or the place .from 0. of a choice, not `E`",
        ),
        (utility_sets.MultipleChoice, "question,answer\na,A\n", "there are no choices"),
        (utility_sets.Sst2, "sentence,label\na,2\n", "`label` is negative, positive or a number, not `2`"),
    ],
)
def test_what_is_no_prompt_is_said(kind: type[Published], content: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(content)
    with pytest.raises(ValueError, match=why):
        prompts(kind, tmp_path / "p.csv")


def test_all_that_is_wrong_is_said_at_once_and_what_is_there_twice_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("id,prompt\n1,a\n2,\n3,b\n1,c\n4, \n")
    why = r"p.csv:3: the prompt is empty.*; 3 of 5 records are refused \(line 3, line 5, line 6\)$"
    with pytest.raises(ValueError, match=why):
        prompts(harm_sets.XsTest, path)
    path.write_text("id,prompt\n1,a\n2,b\n3,a\n4,a\n")
    assert card(harm_sets.XsTest, path).notes[1:] == ("2 prompts repeat earlier ones",)
    own = PromptFile().card(PromptFileSettings(path=str(path)))
    assert own.notes == ("2 prompts repeat earlier ones",)
    path.write_text("prompt\na\na\n")
    assert PromptFile().card(PromptFileSettings(path=str(path))).notes == ("1 prompt repeats an earlier one",)


def test_a_file_of_ones_own_says_which_column_is_which(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("ask,kind,ref,other\nSay one.,songs,1,x\nSay two.,,2,x\n")
    with pytest.raises(
        ValueError, match=r"own.csv:2: a prompt has either `prompt` or `messages`; the columns are `ask`.*`columns: "
    ):
        PromptFile().prompts(PromptFileSettings(path=str(path)))
    told = PromptFileSettings(path=str(path), columns={"prompt": "ask", "category": "kind", "reference": "ref"})  # type: ignore[arg-type] # as a spec has it
    found = PromptFile().prompts(told)
    assert [(one.text, one.category, one.references) for one in found] == [
        ("Say one.", "songs", ("1",)),
        ("Say two.", "all", ("2",)),
    ]
    (tmp_path / "plain.txt").write_text("Say one.\n\nSay two.\n")
    plain = PromptFile().prompts(PromptFileSettings(path=str(tmp_path / "plain.txt"), n=1))
    assert len(plain) == 1
