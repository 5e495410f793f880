"""`--set PATH=VALUE`: edits of the YAML tree before it is validated, so that they are checked like the file itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from engine.domain.errors import Problem
from engine.spec import yaml_nodes
from engine.spec.leaves import LEAVES, closest
from engine.spec.positions import SET, Mark, Problems, Source
from engine.spec.yaml_nodes import Entry, Mapping, Node, Scalar

_WHOLE = ("sweep", "description", "baselines")
_GRID = ("axes", "zip", "when", "exclude", "include")


def override(root: Mapping, texts: Iterable[str], problems: Problems) -> tuple[Mapping, frozenset[str]]:
    """Apply overrides in order; a later one wins.

    Args:
        root: The spec as the file has it.
        texts: `PATH=VALUE`, the value in YAML.
        problems: Receives what is wrong, placed in `--set`.

    Returns:
        The changed spec, and the recipe paths that were changed.
    """
    changed: set[str] = set()
    for entry in _entries(texts, problems):
        root, leaf = _apply(root, entry, problems)
        changed |= {leaf} if leaf else set()
    return root, frozenset(changed)


def put_all(root: Mapping, texts: Iterable[str], problems: Problems) -> Mapping:
    """Return `root` with overrides applied in order, wherever their paths lead; for files that are no spec.

    Args:
        root: The file's tree.
        texts: `PATH=VALUE`, the value in YAML.
        problems: Receives what is wrong, placed in `--set`.
    """
    for entry in _entries(texts, problems):
        root = _put(root, entry.key.split("."), entry)
    return root


def _entries(texts: Iterable[str], problems: Problems) -> Iterator[Entry]:
    """Yield each override as an entry: its path is the key."""
    for number, text in enumerate(texts, start=1):
        source = Source.of(SET, text, number)
        path, equals, value = text.partition("=")
        if not equals:
            what = "expected PATH=VALUE"
            problems.add(Mark(source, number, 1).problem("", what, code="bad_override", hint="such as tune.lr=1e-3"))
            continue
        # Blanks in place of the path leave the value's columns as the user sees them.
        blank = " " * (len(path) + 1)
        count = len(problems.found)
        node = yaml_nodes.compose(source, blank + value, problems, yaml_nodes.join("", path.strip()))
        if len(problems.found) == count:
            mark = Mark(source, number, 1)
            yield Entry(path.strip(), mark, node or Scalar(None, Mark(source, number, len(blank) + 1)))


def _apply(root: Mapping, entry: Entry, problems: Problems) -> tuple[Mapping, str]:
    """Return the changed tree and the recipe path that was changed, if one was."""
    head, _, rest = entry.key.partition(".")
    leaf = rest if head in {"recipe", "axes"} else entry.key
    if entry.key in _WHOLE or (head == "run" and rest):
        return _put(root, entry.key.split("."), entry), ""
    if leaf not in LEAVES:
        problems.add(_unknown(entry, leaf))
        return root, ""
    is_axis = head == "axes" or _is_axis(entry.value, holds_list=LEAVES[leaf].holds_list)
    root = _unsweep(root, leaf, keep_axis=is_axis)
    return _put(root, ["axes", leaf] if is_axis else ["recipe", *leaf.split(".")], entry), leaf


def _unknown(entry: Entry, leaf: str) -> Problem:
    if entry.key.partition(".")[0] in _GRID and leaf == entry.key:
        hint = "of the grid, only axes can be set: axes.PATH=[LEVELS]"
    else:
        hint = closest(leaf, [*LEAVES, *_WHOLE, "run.max_cells", "run.budget.usd", "run.keep_weights"])
    return entry.mark.problem(yaml_nodes.join("", entry.key), "nothing to set here", code="unknown_path", hint=hint)


def _is_axis(value: Node, *, holds_list: bool) -> bool:
    """Tell levels from a level: a list, or a list of lists for a field that holds a list."""
    if not isinstance(value, yaml_nodes.Sequence):
        return False
    return not holds_list or (bool(value.items) and all(isinstance(v, yaml_nodes.Sequence) for v in value.items))


def _put(mapping: Mapping, keys: Sequence[str], new: Entry) -> Mapping:
    """Return `mapping` with `new`'s value at `keys`, in place of what was there or else last."""
    key, *rest = keys
    old = mapping.get(key)
    value = new.value
    if rest:
        inner = old.value if old is not None and isinstance(old.value, Mapping) else Mapping((), new.mark)
        value = _put(inner, rest, new)
    entry = Entry(key, old.mark if old is not None and rest else new.mark, value)
    entries = tuple(entry if e.key == key else e for e in mapping.entries)
    return replace(mapping, entries=entries if old is not None else (*entries, entry))


def _unsweep(root: Mapping, path: str, *, keep_axis: bool) -> Mapping:
    """Return `root` without the places that sweep `path`; what they leave empty goes too."""

    def less(node: Node) -> Node | None:
        if not isinstance(node, Mapping) or node.get(path) is None:
            return node
        left = tuple(entry for entry in node.entries if entry.key != path)
        return replace(node, entries=left) if left else None

    def less_when(node: Node) -> Node | None:
        if not isinstance(node, Mapping) or node.get("axes") is None:
            return node
        edited = _edit(node, "axes", less)
        return edited if edited.get("axes") is not None else None

    root = _edit(_edit(root, "zip", _each(less)), "when", _each(less_when))
    return root if keep_axis else _edit(root, "axes", less)


def _each(edit: Callable[[Node], Node | None]) -> Callable[[Node], Node | None]:
    """Return an edit of every item of a list; items that vanish are left out."""

    def edited(node: Node) -> Node | None:
        if not isinstance(node, yaml_nodes.Sequence):
            return node
        return replace(node, items=tuple(new for item in node.items if (new := edit(item)) is not None))

    return edited


def _edit(mapping: Mapping, key: str, edit: Callable[[Node], Node | None]) -> Mapping:
    """Return `mapping` with the value at `key` edited; the entry goes when nothing is left of it."""
    entries: list[Entry] = []
    for entry in mapping.entries:
        value = edit(entry.value) if entry.key == key else entry.value
        if value is not None:
            entries.append(replace(entry, value=value))
    return replace(mapping, entries=tuple(entries))
