from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from engine.domain.adapters import Kind
from engine.domain.errors import SpecError
from engine.domain.sweep import Axis, Pattern
from engine.spec import yaml_nodes
from engine.spec.load import load_sweep, read_sweep
from engine.spec.origins import base_level
from engine.spec.yaml_nodes import core_value

from .reading import BASE, problems, read, the_problem, use


def test_a_whole_spec() -> None:
    sweep = read(
        """\
        description: Everything at once.
        axes:
          data.n: [10, 50]
          tune.method: [lora, full]
          judges: [[standin/rules], [standin/rules, refusal/keywords]]
          utility: [null, standin/utility]
        zip:
          - {data.source: [standin/chores, "file:c d"], tune.lr: [5e-5, 1]}
        when:
          - if: {tune.method: full}
            axes: {tune.epochs: [1, 2]}
        exclude: [{data.source: standin/chores, data.n: [50]}, {judges: [standin/rules], utility: null}]
        include: [{data.n: 7, seed: 3}]
        baselines: false
        run: {budget: {usd: 1.00}, max_cells: 0o17}
        """.replace("5e-5, 1]", "5e-5, .1]")
    ).sweep
    rules = use(Kind.JUDGE, "standin/rules")
    assert sweep.axes == (
        Axis(path="data.n", levels=(10, 50)),
        Axis(path="tune.method", levels=("lora", "full")),
        Axis(path="judges", levels=((rules,), (rules, use(Kind.JUDGE, "refusal/keywords")))),
        Axis(path="utility", levels=(None, use(Kind.BENCHMARK, "standin/utility"))),
    )
    assert sweep.zips[0][1] == Axis(path="tune.lr", levels=(5e-5, 0.1))
    assert sweep.whens[0].patterns == (Pattern(path="tune.method", any_of=("full",)),)
    assert sweep.whens[0].axes == (Axis(path="tune.epochs", levels=(1, 2)),)
    assert sweep.excludes[1][0] == Pattern(path="judges", any_of=((rules,),))
    assert sweep.includes == ((("data.n", 7), ("seed", 3)),)
    assert sweep.recipe.tune is not None
    assert base_level(sweep.recipe, "tune.lr") == 0.001
    assert (sweep.baselines, sweep.run.budget.usd, sweep.run.max_cells) == (False, Decimal(1), 15)


def test_sections_whose_every_line_is_commented_out_are_empty() -> None:
    assert read("axes:\nzip:\nwhen:\nexclude:\ninclude:\nrun:\ndescription:\n").sweep == read().sweep


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1", -1),
        ("0o17", 15),
        ("017", 17),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("2026-01-01", "2026-01-01"),
        ("=", "="),
        ("1e", "1e"),
        ("0b1", "0b1"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert core_value(text) == value
    assert type(core_value(text)) is type(value)


# Each case: what is added to BASE (line 8 on), then `line:column`, path, code and words of the only problem.
BAD = [
    # the recipe and the settings
    ("run: {max_cell: 4}", "8:7", "run.max_cell", "unknown_field", "did you mean `max_cells`"),
    ("run: {max_cells: 0}", "8:18", "run.max_cells", "out_of_range", "at least 1 (got 0)"),
    ("run: {max_cells: 1_000}", "8:18", "run.max_cells", "wrong_type", "write 1000"),
    ("run: {keep_weights: no}", "8:21", "run.keep_weights", "wrong_type", "write `false`"),
    ("run: {budget: {usd: much}}", "8:21", "run.budget.usd", "wrong_type", "expected a number, got the string 'much'"),
    ("run: {budget: 3}", "8:15", "run.budget", "wrong_type", "expected a mapping of fields, got the number 3"),
    ("run: {budget: {usd: true}}", "8:21", "run.budget.usd", "wrong_type", "expected a number, got true"),
    ("run: {accounts: {A: {provider: a}}}", "8:18", "run.accounts.A", "bad_name", "begin with a letter"),
    ("run: {accounts: {a: {provider: a, key_env: k}}}", "8:44", "run.accounts.a.key_env", "bad_name", "capitals"),
    (
        "run: {accounts: {a: {provder: a, provider: a}}}",
        "8:22",
        "run.accounts.a.provder",
        "unknown_field",
        "`provider`",
    ),
    (
        "run: {accounts: {a: {provider: a, quota: {rpm: 1}}}}",
        "8:43",
        "run.accounts.a.quota.rpm",
        "unknown_field",
        "requests_per_minute",
    ),
    *(
        (
            f"run: {{accounts: {{a: {{provider: a, base_url: '{url}'}}}}}}",
            "8:45",
            "run.accounts.a.base_url",
            "inconsistent",
            why,
        )
        for url, why in (
            ("localhost:80/v1", "such as `https:"),
            ("https:///v1", "such as `https:"),
            ("http://a b/", "such as `https:"),
            ("http://localhost:80801/v1", "Port out of range"),
            ("http://[::1/v1", "Invalid IPv6"),
            ("https://me:pass@host/v1", "the environment has the key"),
        )
    ),
    ("description: 5", "8:14", "description", "wrong_type", "put it in quotes"),
    ("axis: {data.n: [1]}", "8:1", "axis", "unknown_field", "did you mean `axes`"),
    # axes
    ("axes: {tune.lrr: [1]}", "8:8", "axes.tune.lrr", "unknown_path", "did you mean `tune.lr`"),
    ("axes: {epoch: [1]}", "8:8", "axes.epoch", "unknown_path", "did you mean `tune.epochs`"),
    ("axes: {tune: [1]}", "8:8", "axes.tune", "unknown_path", "tune.epochs"),
    ("axes: {data.mix.n: [1]}", "8:8", "axes.data.mix.n", "missing_section", "the recipe has no `data.mix`"),
    ("axes: {tune.lr: [1e-4, abc]}", "8:24", "axes.tune.lr[1]", "wrong_type", "a number, got the string 'abc'"),
    ("axes: {tune.lr: [1e-4, 2]}", "8:24", "axes.tune.lr[1]", "out_of_range", "less than 1 (got 2)"),
    ("axes: {tune.lr: [.nan]}", "8:18", "axes.tune.lr[0]", "bad_number", "not a usable number (got .nan)"),
    ("axes: {tune.lr: [1e999]}", "8:18", "axes.tune.lr[0]", "bad_number", "1e999"),
    ("axes: {seed: [12345678901234567890]}", "8:15", "axes.seed[0]", "bad_number", "12345678901234567890"),
    ("axes: {data.n: [1.0]}", "8:17", "axes.data.n[0]", "wrong_type", "write 1"),
    ("axes: {data.n: ['50']}", "8:17", "axes.data.n[0]", "wrong_type", "remove the quotes"),
    ("axes: {data.n: [true]}", "8:17", "axes.data.n[0]", "wrong_type", "a whole number or `all`, got true"),
    ("axes: {data.n: []}", "8:16", "axes.data.n", "empty_axis", "at least one level"),
    ("axes: {data.n: 50}", "8:16", "axes.data.n", "wrong_type", "expected a list of levels, got the number 50"),
    ("axes: {data.n: [1, 2, 1]}", "8:23", "axes.data.n[2]", "duplicate_level", "already at `axes.data.n[0]`"),
    ("axes: {tune.lr: [0.001, 1e-3]}", "8:25", "axes.tune.lr[1]", "duplicate_level", "level 0.001"),
    ("axes: {tune.method: [loar]}", "8:22", "axes.tune.method[0]", "not_allowed", "did you mean `lora`"),
    ("axes: {model: [My Model]}", "8:16", "axes.model[0]", "bad_name", "name:argument"),
    ("axes: {judges: [standin/rules]}", "8:17", "axes.judges[0]", "wrong_type", "is itself a list"),
    ("axes: {judges: [[]]}", "8:17", "axes.judges[0]", "empty", "at least one item"),
    ("axes: {judges: [[standin/rules], [B]]}", "8:35", "axes.judges[1][0]", "bad_name", "'B'"),
    ("axes: [1]", "8:7", "axes", "wrong_type", "a mapping of paths, got a list"),
    # zip
    ("zip: {data.n: [1]}", "8:6", "zip", "wrong_type", "begin each item with `- `"),
    (
        "zip: [{data.n: [1, 2], seed: [1]}]",
        "8:24",
        "zip[0].seed",
        "unequal_zip",
        "1 levels, but `data.n` beside it has 2",
    ),
    ("zip: [{}]", "8:7", "zip[0]", "empty", "nothing is given"),
    ("axes: {seed: [1]}\nzip: [{seed: [2]}]", "9:8", "zip[0].seed", "swept_twice", "by `axes.seed`"),
    # when
    ("when: [{if: {seed: 0}, axs: {seed: [1]}, axes: {data.n: [1]}}]", "8:24", "when[0].axs", "unknown_field", "axes"),
    ("when: [{if: {seed: 0}}]", "8:8", "when[0].axes", "missing_field", "required"),
    ("when: [{if: {seed: 1}, axes: {data.n: [1]}}]", "8:20", "when[0].if.seed", "level_never_taken", "level 1"),
    (
        "axes: {seed: [1]}\nwhen: [{if: {data.n: 10}, axes: {seed: [2]}}]",
        "9:34",
        "when[0].axes.seed",
        "swept_twice",
        "by",
    ),
    # exclude and include
    ("axes: {data.n: [10, 50]}\nexclude: [{data.n: [5]}]", "9:21", "exclude[0].data.n[0]", "level_never_taken", "`50`"),
    ("exclude: [{tune.method: full}]", "8:25", "exclude[0].tune.method", "level_never_taken", "known: `lora`"),
    ("exclude: [{judges: [refusal/keywords]}]", "8:20", "exclude[0].judges", "level_never_taken", "refusal/keywords"),
    ("exclude: [{data.n: []}]", "8:20", "exclude[0].data.n", "empty", "at least one level"),
    ("exclude: [{n: 1}]", "8:12", "exclude[0].n", "unknown_path", "did you mean `data.n`"),
    ("include: [{data.n: [1]}]", "8:20", "include[0].data.n", "wrong_type", "a whole number or `all`, got a list"),
    ("include: [5]", "8:11", "include[0]", "wrong_type", "got the number 5"),
    # YAML itself
    ("sweep: again", "8:1", "sweep", "duplicate_key", "already at 1:1"),
    ("run: {max_cells: 1, max_cells: 2}", "8:21", "run.max_cells", "duplicate_key", "8:7"),
    ("run: {<<: {max_cells: 1}}", "8:7", "run.<<", "merge_key", "not supported"),
    ("run: !!python/object:os.system {}", "8:6", "run", "tag", "tags are refused"),
    ("description: !x hi", "8:14", "description", "tag", "!x"),
    ("description: *nope", "8:14", "description", "unknown_alias", "&nope"),
    ("axes: &a {data.n: [*a]}", "8:20", "axes.data.n[0]", "recursive_alias", "contains itself"),
    ("---\nsweep: two", "8:1", "", "multiple_documents", "second YAML document"),
    ("1: x", "8:1", "", "key_not_text", "a key must be text (got 1)"),
    ("? [a]\n: x", "8:3", "", "key_not_text", "something else"),
    ("run:\n\tmax_cells: 1", "9:1", "", "yaml_syntax", "this is a tab"),
    ("axes: {data.n: [1, 2", "8:21", "", "yaml_syntax", "while parsing a flow sequence"),
    ("description: a: b", "8:15", "", "yaml_syntax", "quote text"),
    ("description: \x1b[2J", "8:14", "", "bad_character", "\\x1b"),
    ("run: " + "[" * 40, "8:37", "", "too_deep", "32 deep"),
]


@pytest.mark.parametrize(("more", "place", "path", "code", "words"), BAD, ids=[f"{b[3]}-{b[2]}" for b in BAD])
def test_each_mistake_has_its_place_and_its_cure(more: str, place: str, path: str, code: str, words: str) -> None:
    problem = the_problem(more)
    assert (problem.position, problem.path, problem.code) == (f"x.yaml:{place}", path, code)
    assert words in f"{problem.what} {problem.hint}"
    assert "pydantic" not in str(problem)
    assert "Input should" not in str(problem)


@pytest.mark.parametrize("field", ["key_env: sk-proj-abc123", "base_url: 'https://me:sk-proj-abc123@host/v1'"])
def test_a_key_that_was_pasted_into_a_spec_is_not_said_again(field: str) -> None:
    problem = the_problem(f"run: {{accounts: {{a: {{provider: a, {field}}}}}}}")
    assert problem.path.startswith("run.accounts.a.")
    assert "abc123" not in str(problem)


BAD_BASE = [
    (BASE.replace("sweep: tiny\n", ""), "1:1", "sweep", "missing_field"),
    (BASE.replace("tiny", "Tiny Sweep"), "1:8", "sweep", "bad_name"),
    (BASE.replace("tiny", ""), "1:7", "sweep", "wrong_type"),
    (BASE.replace(", n: 10", ""), "4:3", "recipe.data.n", "missing_field"),
    (BASE.replace("lr: 1e-3", "lr: 1e-3, lr_multiplier: 2"), "5:20", "recipe.tune.lr_multiplier", "unknown_field"),
    (BASE.replace("lr: 1e-3", "lr: 1e-3, epochs: 1, steps: 2"), "5:9", "recipe.tune", "inconsistent"),
    (BASE.replace("  tune: {lr: 1e-3}\n", ""), "2:1", "recipe", "inconsistent"),
    (BASE.replace("benchmark: ", "benchmrk: a\n  benchmark: "), "6:3", "recipe.benchmrk", "unknown_field"),
    (BASE.replace("{lr: 1e-3}", "{lr: 1e-3}\n  generate: {samples: 2}"), "6:13", "recipe.generate", "inconsistent"),
    ("", "1:1", "", "empty_file"),
    ("# only a comment\n\n", "1:1", "", "empty_file"),
    ("- sweep: x\n", "1:1", "", "wrong_type"),
    ("just text\n", "1:1", "", "wrong_type"),
]


@pytest.mark.parametrize(("text", "place", "path", "code"), BAD_BASE, ids=[f"{b[3]}-{b[2]}" for b in BAD_BASE])
def test_a_recipe_that_is_wrong(text: str, place: str, path: str, code: str) -> None:
    problem = the_problem(base=text)
    assert (problem.position, problem.path, problem.code) == (f"x.yaml:{place}", path, code)


def test_a_swept_field_still_needs_a_value_in_the_recipe() -> None:
    problem = the_problem("axes: {data.n: [10]}", base=BASE.replace(", n: 10", ""))
    assert problem.hint == "`axes.data.n` varies it; the recipe needs a value of its own as well"


def test_a_section_that_is_left_out_cannot_be_varied() -> None:
    untuned = BASE.replace("  tune: {lr: 1e-3}\n", "").replace("  data: {source: standin/explicit, n: 10}\n", "")
    problem = the_problem("axes: {data.n: [1]}", base=untuned)
    assert (problem.position, problem.code, problem.hint) == ("x.yaml:6:8", "missing_section", "add `data` to `recipe`")


def test_all_problems_come_at_once_in_file_order() -> None:
    more = "axes: {data.n: [x, 0, .inf], nope: [1]}\nrun: {budget: {usd: x}}\nwat: 1\n"
    found = problems(more, "tune.lr=[1,", "seed=-1", base=BASE.replace("n: 10", "n: 0"))
    assert [(p.position, p.code) for p in found] == [
        ("x.yaml:4:39", "out_of_range"),
        ("x.yaml:8:17", "wrong_type"),
        ("x.yaml:8:20", "out_of_range"),
        ("x.yaml:8:23", "bad_number"),
        ("x.yaml:8:30", "unknown_path"),
        ("x.yaml:9:21", "wrong_type"),
        ("x.yaml:10:1", "unknown_field"),
        ("--set:1:12", "yaml_syntax"),
        ("--set:2:6", "out_of_range"),
    ]


def test_the_caret_stands_under_the_fault() -> None:
    lines = str(the_problem("axes: {tune.lr: [1e-4, abc]}")).splitlines()
    assert lines == [
        "x.yaml:8:24: axes.tune.lr[1]: expected a number, got the string 'abc'",
        "    axes: {tune.lr: [1e-4, abc]}",
        "                           ^",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "axes: {data.n: [" + ", ".join(map(str, range(1, 400))) + ", @HERE, " + "7" * 300 + "]}",
        "description: {'\u202e\u4f60\u597d e\u0301\xa0': @HERE}",
    ],
    ids=["long", "odd characters"],
)
def test_long_and_hostile_lines_are_shown_cut_and_visible(line: str) -> None:
    found = problems(line.replace("@HERE", "!boo x"))
    problem = next(problem for problem in found if problem.code == "tag")
    _, excerpt, caret, *_ = str(problem).splitlines()
    assert len(excerpt) < 150
    assert excerpt.replace(" ", "").isprintable()
    before = excerpt[: excerpt.index("!boo")]
    wide, combining = sum(c in "\u4f60\u597d" for c in before), before.count("\u0301")
    assert len(caret) - 1 == len(before) + wide - combining


def test_what_a_spec_says_reaches_the_terminal_escaped_and_cut() -> None:
    more = r"""exclude: [{generate.system: "\e[2J%s"}, {"\e]0;x": 1}]""" % ("y" * 500)
    found = problems(more)
    assert [problem.code for problem in found] == ["level_never_taken", "unknown_path"]
    for problem in found:
        assert str(problem).replace("\n", "").isprintable()
        assert len(problem.what) < 100


@pytest.mark.parametrize(
    ("raw", "place", "code"),
    [
        (b"sweep: \xff\n", "1:8", "not_utf8"),
        ("sweep: tiny\ndescription: é".encode("latin-1"), "2:14", "not_utf8"),
        (b"\xef\xbb\xbfsweep: \xff\n", "1:8", "not_utf8"),
        (b"sweep: tiny\x00\n", "1:12", "bad_character"),
        (b"#" * (2**20 + 1), "1:1", "too_large"),
    ],
)
def test_bytes_that_are_no_spec(raw: bytes, place: str, code: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_sweep(raw, "x.yaml")
    assert [(p.position, p.code) for p in caught.value.problems] == [(f"x.yaml:{place}", code)]


def test_a_byte_order_mark_and_windows_line_ends_are_harmless() -> None:
    assert read_sweep(b"\xef\xbb\xbf" + BASE.replace("\n", "\r\n").encode(), "x.yaml").sweep == read().sweep


def test_too_many_values_and_alias_bombs_are_refused_before_they_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_nodes, "MAX_VALUES", 2_000)
    problem = the_problem(base="a: [" + "1," * 2_001 + "]")
    assert (problem.position, problem.code) == ("x.yaml:1:4", "too_large")
    bomb = ["a0: &a0 [1]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert the_problem(base="\n".join(bomb)).code == "too_large"
    many = "a: &a 1\nb: [" + "*a, " * 101 + "]"
    assert the_problem(base=many).code == "too_many_aliases"
    deep = [f"a{n}: &a{n} {'[' * 20}{f'*a{n - 1}' if n else 1}{']' * 20}" for n in range(90)]
    assert the_problem(base="\n".join(deep)).code == "too_deep", "aliases inside aliases nest as well"


def test_aliases_are_otherwise_just_values() -> None:
    assert read("axes: {data.n: &n [10, 50]}\nexclude: [{data.n: [50]}]").sweep.axes[0].levels == (10, 50)
    assert read("when: [{if: {seed: 0}, axes: &a {data.n: [5]}}]\n").sweep.whens[0].axes[0].levels == (5,)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot read the file: No such file"):
        load_sweep(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match="Is a directory"):
        load_sweep(tmp_path)


def test_load_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(BASE)
    assert load_sweep(path, ["seed=4"]).sweep.recipe.seed == 4


def test_positions_fall_back_to_the_nearest_parent() -> None:
    positions = read("axes:\n  data.n: [1, 2]\n").positions
    assert [
        (positions.mark(path).line, positions.mark(path).column)
        for path in ("axes.data.n[1]", "axes.data.n[9]", "axes.tune.lr[0]", "recipe.tune.epochs", "run.max_cells")
    ] == [(9, 15), (9, 3), (8, 1), (5, 3), (1, 1)]


def test_plain_yaml_agrees_where_the_versions_of_yaml_do() -> None:
    text = "[1, -2, 3.5, true, null, text, 'quoted: 1', {a: [b]}]"
    from engine.spec.positions import Problems, Source
    from engine.spec.yaml_nodes import compose

    found = compose(Source.of("x", text), text, Problems())
    assert found is not None
    assert found[0] == yaml.safe_load(text)
