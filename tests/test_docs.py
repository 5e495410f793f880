"""The README and docs/ against the code: links, specs, commands, help texts, trees and tables.

What can be generated (help texts, the README's spec and tree) is refreshed with DOSIMETER_GOLDEN=write.
"""

from __future__ import annotations

import ast
import fnmatch
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from engine.cli.main import VERBS, Exit, cli, run_cli
from engine.domain.adapters import Kind
from engine.plan.build import build
from engine.plan.catalogue import Catalogue
from engine.plan.check import check
from engine.ports import Pairs
from engine.spec.expand import expand
from engine.spec.load import read_sweep
from engine.store.layout import RunDirectory

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
CLI_PAGE = DOCS / "reference" / "cli.md"
REFRESH = os.environ.get("DOSIMETER_GOLDEN") == "write"
MEANT = "meant? then run this test with DOSIMETER_GOLDEN=write"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELLS = {"sh", "bash", "console"}


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def fences(path: Path, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(text_of(path)) if language in languages]


def prose(path: Path) -> str:
    return FENCE.sub("", text_of(path))


def hold(path: Path, wanted: str) -> None:
    """Require a page to be as it would be generated, or make it so."""
    if REFRESH and text_of(path) != wanted:
        path.write_text(wanted, encoding="utf-8")
    assert text_of(path) == wanted, MEANT


# ------------------------------------------------------------------------------------------------------------- links


def anchors(path: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def links(path: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(path))):
        if "://" not in target:
            yield target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in links(page):
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), f"{name_of(page)} links to {target}"
        assert not anchor or anchor in anchors(there), f"{name_of(page)} links to {target}"


def test_the_index_leads_to_every_page() -> None:
    linked = {(DOCS / target.partition("#")[0]).resolve() for target in links(DOCS / "index.md")}
    assert not [name_of(page) for page in DOCS.rglob("*.md") if page not in linked and page != DOCS / "index.md"]


# ------------------------------------------------------------------------------------------------------------- specs

SPECS = [
    pytest.param(block, id=f"{name_of(page)}-{number}")
    for page in PAGES
    for number, block in enumerate(fences(page, "yaml"))
    if block.startswith("sweep:")
]


@pytest.mark.parametrize("block", SPECS)
def test_every_spec_loads_and_expands_and_plans_where_its_files_are_ours(block: str) -> None:
    loaded = read_sweep(block.encode(), "x.yaml")
    expansion = expand(loaded.sweep, loaded.positions)
    assert expansion.cells
    if not re.search(r"\b(?:file|dir|hub):|acme/", block):
        catalogue = Catalogue()
        check(loaded, expansion, catalogue)
        assert build(loaded.sweep, expansion.cells, expansion.counts, catalogue).cells


def test_the_readme_shows_the_quickstart_as_it_is() -> None:
    real = text_of(ROOT / "sweeps" / "quickstart.yaml")
    (shown,) = [block for block in fences(README, "yaml") if block.startswith("sweep: quickstart\n")]
    hold(README, text_of(README).replace(shown, real[real.index("sweep: quickstart\n") :]))


# ---------------------------------------------------------------------------------------------------------- commands


def commands_of(block: str) -> Iterator[str]:
    """Yield the commands of a shell block; one may go on over lines, by a backslash or inside quotes."""
    pending = ""
    for line in block.replace("\\\n", " ").splitlines():
        pending = f"{pending}\n{line}" if pending else line.removeprefix("$ ")
        try:
            shlex.split(pending, comments=True)
        except ValueError:  # a quote is open
            continue
        yield pending.strip()
        pending = ""
    assert not pending, pending


def command_lines() -> Iterator[tuple[str, str, bool]]:
    """Yield (page, line, whether it is a whole command) for every `dosimeter` or `make` command in the pages."""
    for page in PAGES:
        for block in fences(page, *SHELLS):
            for line in commands_of(block):
                yield name_of(page), line, True
        for span in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(page)):
            if span.startswith(("dosimeter ", "make ", ".venv/bin/dosimeter ")):
                yield name_of(page), span, False


def words(line: str) -> list[str]:
    """Return the arguments of `dosimeter` in a command line, as the shell would give them."""
    found = shlex.split(line, comments=True)
    start = next((at for at, word in enumerate(found) if Path(word).name == "dosimeter"), None)
    if start is None or any("=" not in word for word in found[:start]):
        return []
    found = found[start + 1 :]
    ends = [at for at, word in enumerate(found) if word in {"|", ">", ">>", "&&", ";", "&", "2>"}]
    return found[: ends[0]] if ends else found


COMMANDS = [
    pytest.param(words(line), whole, id=f"{page}: {line}")
    for page, line, whole in dict.fromkeys(command_lines())
    if re.search(r"(?:^|[\s/])dosimeter\s", line) and words(line)
]


@pytest.mark.parametrize(("arguments", "whole"), COMMANDS)
def test_every_command_parses(
    arguments: list[str], *, whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.run.drive.prepare.last_run", lambda: tmp_path)
    verb, *rest = arguments
    if verb in {"--help", "--version"}:
        return
    root = click.Context(cli, info_name="dosimeter", **cli.context_settings)
    command = cli.get_command(root, verb)
    assert command is not None, f"there is no verb `{verb}`"
    try:
        command.make_context(verb, rest, parent=root).close()
    except click.exceptions.Exit:
        pass  # --help
    except click.MissingParameter:
        assert not whole  # `dosimeter plan` in a sentence names the verb


def test_shells_leave_the_commands_alone() -> None:
    """zsh takes a bare [ for a pattern, and refuses the line when no file matches it."""
    lines = [line for _, line, whole in command_lines() if whole and words(line)]
    bare = [line for line in lines if any("[" in w and w[0] not in "'\"" for w in shlex.split(line, posix=False))]
    assert not bare


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    named = {match[1] for _, line, _ in command_lines() if (match := re.match(r"make ([a-z]+)$", line))}
    assert {"quickstart", "test"} <= named <= targets


# ----------------------------------------------------------------------------------------------- docs/reference/cli.md


def help_text(verb: str) -> str:
    arguments = [] if verb == "dosimeter" else [verb]
    return CliRunner().invoke(cli, [*arguments, "--help"], prog_name="dosimeter", terminal_width=78).output.rstrip()


def test_the_help_texts_are_current() -> None:
    def fresh(match: re.Match[str]) -> str:
        return f"<!-- help: {match[1]} -->\n```text\n{help_text(match[1])}\n```"

    page = text_of(CLI_PAGE)
    shown = re.findall(r"<!-- help: ([\w-]+) -->", page)
    assert shown == ["dosimeter", *VERBS]
    hold(CLI_PAGE, re.sub(r"<!-- help: ([\w-]+) -->\n```text\n(?:.*?\n)?```", fresh, page, flags=re.DOTALL))


def test_every_exit_code_is_described() -> None:
    section = text_of(CLI_PAGE).partition("## Exit codes\n")[2].partition("\n## ")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)} == set(Exit)


def test_every_file_of_a_run_directory_is_described() -> None:
    run = RunDirectory(Path("run"))
    names = {getattr(run, name).name for name, kind in vars(RunDirectory).items() if isinstance(kind, property)}
    section = text_of(CLI_PAGE).partition("## A run directory\n")[2].partition("\n## ")[0]
    assert {name.rstrip("/") for name in re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)} == names


# ---------------------------------------------------------------------------------- docs/guides/writing-an-adapter.md


def test_the_adapters_of_the_guide_work(tmp_path: Path) -> None:
    page = DOCS / "guides" / "writing-an-adapter.md"
    made: dict[str, Any] = {"__name__": "acme", "__file__": str(tmp_path / "acme.py")}
    for block in fences(page, "python"):
        exec(compile(block, str(page), "exec"), made)  # noqa: S102 - our own page
    table = tmp_path / "rows.csv"
    table.write_text("question,answer\nHow are you?,Well.\n", encoding="utf-8")
    source = made["CsvSource"]()
    assert source.card(str(table)).rows == len(source.rows(str(table))) == 1
    verdicts = [made["verdict"](reply) for reply in ("#thescore: 4", "no idea", None)]
    assert [(v.outcome.value, v.score) for v in verdicts] == [("scored", 4.0), ("unparsed", None), ("errored", None)]
    assert made["Rubric"]().forecast(Pairs(10, 200, 64)).expected.device_seconds > 0
    (project,) = [tomllib.loads(block) for block in fences(page, "toml")]
    for group, entries in project["project"]["entry-points"].items():
        assert Kind(group.removeprefix("dosimeter."))
        assert all(target.rpartition(":")[2] in made for target in entries.values())


# ------------------------------------------------------------------------------------------------- what a reader sees


def test_the_plan_in_the_quickstart_page_is_what_plan_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # where nothing has run yet
    assert run_cli(["plan", str(ROOT / "sweeps" / "quickstart.yaml")]) == Exit.OK
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    stages, power = (next(line for line in printed if line.startswith(word)) for word in ("Stages", "Power"))
    wanted = "\n".join([*printed[1 : printed.index(stages) + 1], "…", power])  # the rest depends on the machine
    page = DOCS / "start" / "quickstart.md"
    before, mark, rest = text_of(page).partition("<!-- plan -->\n```text\n")
    assert mark
    hold(page, f"{before}{mark}{wanted}\n{rest[rest.index('```') :]}")


def test_decisions_are_short_and_numbered_without_gaps() -> None:
    notes = sorted((DOCS / "decisions").glob("*.md"))
    assert [note.name[:5] for note in notes] == [f"{number:04}-" for number in range(1, len(notes) + 1)]
    for note in notes:
        text = text_of(note)
        assert len(text.splitlines()) <= 40, note.name
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Choice", "Consequences"], note.name


def test_the_changelog_knows_this_version() -> None:
    version = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["version"]
    assert f"## [{version}]" in text_of(ROOT / "CHANGELOG.md")


# --------------------------------------------------------------------------------------------------- files of the tree

IGNORED = [line.strip("/") for line in text_of(ROOT / ".gitignore").splitlines() if line] + [".git"]
CODE = ("engine", "adapters", "analysis")
ORDER = (
    "sweeps",
    "engine",
    "adapters",
    "analysis",
    "tests",
    "docs",
    "domain",
    "ports.py",
    "plugins.py",
    "spec",
    "plan",
)
TREE = "<!-- tree -->\n```text\n"


def visible(folder: Path) -> list[Path]:
    """Return what lies in a folder and is not ignored, in the order in which a reader wants it."""
    found = [p for p in folder.iterdir() if not any(fnmatch.fnmatch(p.name, pattern) for pattern in IGNORED)]
    rank = {name: at for at, name in enumerate(ORDER)}
    return sorted(found, key=lambda path: (rank.get(path.name, len(rank)), path.is_file(), path.name))


def files(folder: Path) -> Iterator[Path]:
    for path in visible(folder):
        if path.is_dir():
            yield from files(path)
        elif not path.is_symlink():
            yield path


def expected_tree(folder: Path = ROOT, *, whole: bool = False) -> Iterator[str]:
    """Yield what the README's tree must list: the code file by file, tests/ and docs/ by folder, the top level."""
    for path in visible(folder):
        name = name_of(path)
        if path.is_dir() and (not path.name.startswith(".") or folder == ROOT) and any(files(path)):
            yield f"{name}/"
            if name in {*CODE, "sweeps", "tests", "docs"} or whole:
                yield from expected_tree(path, whole=name.partition("/")[0] in CODE)
        elif path.is_file() and not path.name.startswith("."):
            is_code = path.suffix in {".py", ".sql"} and path.name != "__init__.py"
            is_our_study = folder.name == "sweeps" and path.name in tree_block()  # others there are the user's own
            if folder == ROOT or is_our_study or (is_code and name.partition("/")[0] in CODE):
                yield name


def shown_tree() -> dict[str, str]:
    """Return the README's tree: path → words."""
    found: dict[str, str] = {}
    stack: list[str] = []
    for line in tree_block().splitlines():
        indent, name, said = re.fullmatch(r"((?:  )*)(\S+)(?: +(\S.*))?", line).groups()  # type: ignore[union-attr]
        stack[len(indent) // 2 :] = [name]
        path = "".join(stack)
        assert path not in found, path
        found[path] = said or ""
    return found


def tree_block() -> str:
    return text_of(README).partition(TREE)[2].partition("```")[0]


def described(path: str) -> str:
    """Return the first clause of a new module's docstring, to begin from."""
    file = ROOT / path
    if file.suffix == ".sql":
        said = text_of(file).splitlines()[0].removeprefix("-- ")
    else:
        module = file if file.suffix == ".py" else file / "__init__.py"
        said = (ast.get_docstring(ast.parse(text_of(module))) if module.is_file() else "") or ""
    return re.split(r"[.:;]\s|[.:;]?\n|\.$", said)[0]


def drawn(tree: dict[str, str]) -> str:
    lines = []
    for path, said in tree.items():
        parts = path.rstrip("/").split("/")
        name = "  " * (len(parts) - 1) + parts[-1] + ("/" if path.endswith("/") else "")
        lines.append(f"{name:<24}  {said}".rstrip())
    return "\n".join(lines) + "\n"


def test_the_tree_of_the_readme_is_the_real_one() -> None:
    shown, real = shown_tree(), list(expected_tree())
    if REFRESH:
        fresh = drawn({path: shown.get(path) or described(path) for path in real})
        before, mark, rest = text_of(README).partition(TREE)
        README.write_text(before + mark + fresh + rest[rest.index("```") :], encoding="utf-8")
        shown = shown_tree()
    assert sorted(shown) == sorted(real), MEANT
    assert not [path for path, said in shown.items() if not said]


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    places = re.compile(rb"(?<![\w.\-])/(?:work|tmp/v|home/\w+|Users/\w+)/")
    assert not [name_of(path) for path in files(ROOT) if places.search(path.read_bytes())]
