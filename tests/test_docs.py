"""The README and docs/ against the code: links, specs, commands, help texts, trees and tables.

What can be generated (help texts, the README's spec and tree) is refreshed with DOSIMETER_GOLDEN=write.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from engine.cli.main import VERBS, Exit, cli, run_cli
from engine.plan.build import build
from engine.plan.catalogue import Catalogue
from engine.plan.check import check
from engine.spec.expand import expand
from engine.spec.load import read_sweep
from engine.store.layout import RunDirectory
from engine.store.publish import publish
from engine.store.state import State

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
    if block.startswith("sweep:") and "acme/" not in block  # tests/e2e/test_guide.py has the package that this needs
]


@pytest.mark.parametrize("block", SPECS)
def test_every_spec_loads_and_expands_and_plans_where_its_files_are_ours(block: str) -> None:
    loaded = read_sweep(block.encode(), "x.yaml")
    expansion = expand(loaded.sweep, loaded.positions)
    assert expansion.cells
    if not re.search(r"\b(?:file|dir|hub):|\bpath:", block):
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


@pytest.fixture(scope="module")
def empty_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run directory in which nothing has run; it has every view."""
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    State.open(run).close()
    publish(run)
    return run.root


QUERIES = [
    *(pytest.param(p.values[0], id=p.id) for p in COMMANDS if p.values[0][0] == "query" and p.values[1]),
    *(pytest.param(["query", "--sql", sql], id=name_of(page)) for page in PAGES for sql in fences(page, "sql")),
]


@pytest.mark.parametrize("arguments", QUERIES)
def test_every_query_is_answered(
    arguments: list[str], empty_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    assert run_cli([*arguments, "--run", str(empty_run)]) == Exit.OK


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


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_as_the_page_says(shell: str) -> None:
    (line,) = re.findall(rf"^\| {shell} \| `(\S+)=(\S+) dosimeter > ", text_of(CLI_PAGE), re.MULTILINE)
    done = CliRunner(env=dict([line])).invoke(cli, [], prog_name="dosimeter")
    assert done.exit_code == 0
    assert "_DOSIMETER_COMPLETE" in done.output


def test_every_exit_code_is_described() -> None:
    section = text_of(CLI_PAGE).partition("## Exit codes\n")[2].partition("\n## ")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)} == set(Exit)


def test_every_file_of_a_run_directory_is_described() -> None:
    run = RunDirectory(Path("run"))
    names = {getattr(run, name).name for name, kind in vars(RunDirectory).items() if isinstance(kind, property)}
    names |= {"spec.yaml", "plan.json", "report"}
    section = text_of(CLI_PAGE).partition("## A run directory\n")[2].partition("\n## ")[0]
    assert {name.rstrip("/") for name in re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)} == names


# ------------------------------------------------------------------------------------------------- what a reader sees


def test_the_plan_in_the_quickstart_page_is_what_plan_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # where nothing has run yet
    assert run_cli(["plan", str(ROOT / "sweeps" / "quickstart.yaml")]) == Exit.OK
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    stages, *ends = (next(line for line in printed if line.startswith(word)) for word in ("Stages", "Power", "Rows"))
    wanted = "\n".join([*printed[1 : printed.index(stages) + 1], "…", *ends])  # the rest depends on the machine
    page = DOCS / "start" / "quickstart.md"
    before, mark, rest = text_of(page).partition("<!-- plan -->\n```text\n")
    assert mark
    hold(page, f"{before}{mark}{wanted}\n{rest[rest.index('```') :]}")


def test_the_payload_in_the_page_on_keys_is_the_quickstarts() -> None:
    loaded = read_sweep((ROOT / "sweeps" / "quickstart.yaml").read_bytes(), "x.yaml")
    cells = expand(loaded.sweep, loaded.positions)
    plan = build(loaded.sweep, cells.cells, cells.counts, Catalogue())
    (shown,) = fences(DOCS / "concepts" / "identity.md", "json")
    assert json.loads(shown) == json.loads(plan.stages[plan.cells[0].chain[1]].payload)


BANNED = re.compile(
    r"\b(?:desk|seats?|crew|relay|lanes?|bundles?|cuts|trajector\w+|unheard|reproach|floors|rooms?|books)\b|\b(?:an|each|these|whole) asks?\b"
    r"|bears? (?:no )?identity|servers? of ours|our own books|speaks? the|\b(?:one|a) (?:row|line|file|folder|process|host|stage) an? ",
    re.IGNORECASE,
)
"""Words that only this project would know; decision notes keep those of their day."""


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name != "decisions"], ids=name_of)
def test_pages_use_the_words_of_the_field(page: Path) -> None:
    said = re.sub(r"decisions/[\w-]+\.md", "", text_of(page))
    titles = re.findall(r"^- \[00.*$", said, re.MULTILINE)  # the index quotes the notes' own titles
    for title in titles:
        said = said.replace(title, "")
    assert not [found.group() for found in BANNED.finditer(said)]


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


# ------------------------------------------------------------------------------------------------- folders of the tree

OPENED = ("engine", "adapters", "analysis", "tests", "docs")
"""Folders whose own folders the README's tree shows."""

FIRST = ("sweeps", *OPENED)
TREE = "<!-- tree -->\n```text\n"


def tracked() -> list[Path]:
    """Return the files that git has: what else lies in a clone is its user's."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git clone")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def real_tree() -> list[str]:
    """Return the folders that the README's tree must list, in the order in which a reader wants them."""
    parts = {path.relative_to(ROOT).parent.parts for path in tracked()}
    shown = {found[:depth] for found in parts for depth in (1, 2) if depth <= len(found)}
    wanted = [found for found in shown if len(found) == 1 or found[0] in OPENED]
    rank = {name: at for at, name in enumerate(FIRST)}
    wanted.sort(key=lambda found: (rank.get(found[0], len(rank)), found))
    return ["/".join(found) for found in wanted]


def shown_tree() -> dict[str, str]:
    """Return the README's tree: folder → words."""
    found: dict[str, str] = {}
    above = ""
    for line in text_of(README).partition(TREE)[2].partition("```")[0].splitlines():
        indent, name, said = re.fullmatch(r"( *)(\S+)/ +(\S.*)", line).groups()  # type: ignore[union-attr]
        above = above if indent else name
        found[f"{above}/{name}" if indent else name] = said
    return found


def described(folder: str) -> str:
    """Return the first clause of a new package's docstring, to begin from."""
    package = ROOT / folder / "__init__.py"
    said = (ast.get_docstring(ast.parse(text_of(package))) if package.is_file() else "") or "TODO"
    return re.split(r"[.:;]\s|[.:;]?\n|\.$", said)[0]


def drawn(tree: dict[str, str]) -> str:
    names = {path: "  " * path.count("/") + path.rpartition("/")[2] + "/" for path in tree}
    return "".join(f"{names[path]:<16}  {said}\n" for path, said in tree.items())


def test_the_tree_of_the_readme_is_the_real_one() -> None:
    shown, real = shown_tree(), real_tree()
    if REFRESH:
        fresh = drawn({path: shown.get(path) or described(path) for path in real})
        before, mark, rest = text_of(README).partition(TREE)
        README.write_text(before + mark + fresh + rest[rest.index("```") :], encoding="utf-8")
        shown = shown_tree()
    assert list(shown) == real, MEANT


def test_the_readme_is_short() -> None:
    assert len(text_of(README).splitlines()) <= 200


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    places = re.compile(rb"(?<![\w.\-])/(?:work|tmp/v|home/\w+|Users/\w+)/")
    assert not [name_of(path) for path in tracked() if places.search(path.read_bytes())]
