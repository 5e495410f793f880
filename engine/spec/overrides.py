"""`--set PATH=VALUE`: edits of the YAML tree before it is validated, so that they are checked like the file itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from pydantic.fields import FieldInfo

from engine import registry
from engine.domain.adapters import Reference, Use, kind_of, plain
from engine.domain.errors import UnknownAdapterError
from engine.spec import yaml_nodes
from engine.spec.leaves import INLINE, OLD_NAMES, Leaves, Place, is_list
from engine.spec.messages import Finding, ambiguous, unknown_path
from engine.spec.origins import inner, is_setting_in
from engine.spec.positions import SET, Mark, Problems, Source
from engine.spec.yaml_nodes import Entry, Mapping, Node, Scalar

_WHOLE = ("sweep", "description", "baselines")
_GRID = ("axes", "zip", "when", "exclude", "include")
_RUN = ("run.max_cells", "run.budget.usd", "run.keep_weights")


def renamed(root: Mapping, problems: Problems) -> Mapping:
    """Return a spec in which old names of fields are today's."""

    def today(node: Node, section: str = "") -> Node:
        if not isinstance(node, Mapping):
            return node
        entries: list[Entry] = []
        for entry in node.entries:
            key = OLD_NAMES.get(section + entry.key, section + entry.key).removeprefix(section)
            if key != entry.key and node.get(key) is not None:
                what, hint = f"`{entry.key}` is an old name of `{key}`, and both are given", "remove one of the two"
                where = f"recipe.{section}{entry.key}" if section else entry.key
                problems.add(entry.mark.problem(where, what, code="duplicate_key", hint=hint))
            else:
                entries.append(replace(entry, key=key))
        return replace(node, entries=tuple(entries))

    def section(name: str) -> Callable[[Node | None], Node | None]:
        return lambda node: None if node is None else today(node, f"{name}.")

    root = _edit_grid(root, today)
    for name in INLINE:
        root = _edit_at(root, ["recipe", name], section(name), root.mark)
    return root


def override(root: Mapping, texts: Iterable[str], problems: Problems) -> tuple[Mapping, frozenset[str]]:
    """Apply overrides in order; a later one wins.

    Args:
        root: The spec as the file has it.
        texts: `PATH=VALUE`, the value in YAML.
        problems: Receives what is wrong, placed in `--set`.

    Returns:
        The changed spec, and the recipe paths that were changed.
    """
    entries = list(_entries(texts, problems))
    written = root.plain
    leaves = Leaves.of(written, *({**written, "axes": {_leaf_path(entry.key): entry.value.plain}} for entry in entries))
    changed: set[str] = set()
    for entry in entries:
        root, paths = _apply(root, entry, leaves, problems)
        changed |= paths
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
    """Yield the path and the value of each override that can be read."""
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
            nothing = Scalar(None, Mark(source, number, len(blank) + 1))
            yield Entry(path.strip(), Mark(source, number, 1), node or nothing)


def _leaf_path(key: str) -> str:
    """Return the recipe's path that an override is for."""
    head, _, rest = key.partition(".")
    path = rest if head in {"recipe", "axes"} else key
    return OLD_NAMES.get(path, path)


def _apply(root: Mapping, entry: Entry, leaves: Leaves, problems: Problems) -> tuple[Mapping, set[str]]:
    """Return the changed tree and the recipe paths that were changed."""
    head, _, rest = entry.key.partition(".")
    path = _leaf_path(entry.key)
    if entry.key in _WHOLE or (head == "run" and rest):
        return _put(root, entry.key.split("."), entry), set()
    leaf = leaves.get(path)
    if leaf is None or path.startswith(tuple(leaves.doubled)):
        where = yaml_nodes.join("", entry.key)
        finding = _unknown(where, path, leaves) if leaf is None else ambiguous(path, where)
        problems.add(entry.mark.problem(where, finding.what, code=finding.code, hint=finding.hint))
        return root, set()
    is_axis = head == "axes" or _is_axis(entry.value, holds_list=leaf.holds_list)
    root = _unsweep(root, path, keep_axis=is_axis)
    if is_axis:
        return _put(root, ["axes", path], entry), {path}
    if not leaf.adapters:
        return _put(root, ["recipe", *path.split(".")], entry), {path}
    return _everywhere(root, path, leaves, entry)


def _unknown(key: str, path: str, leaves: Leaves) -> Finding:
    if key.partition(".")[0] in _GRID and path == key:
        hint = "of the grid, only axes can be set: axes.PATH=[LEVELS]"
        return Finding(key, "nothing to set here", "unknown_path", hint)
    return unknown_path(leaves, path, key, (*_WHOLE, *_RUN))


def _everywhere(root: Mapping, path: str, leaves: Leaves, new: Entry) -> tuple[Mapping, set[str]]:
    """Set an adapter's setting wherever the spec names the adapter; return the changed tree and the changed paths."""
    places = [place for place in leaves.places if is_setting_in(place.path, path)]
    rests = {place.path: inner(path).removeprefix(f"{place.path}.") for place in places}
    by_path = {place.path: place for place in places}
    own = min(places, key=lambda place: len(place.path))
    home = own.path.split(".")[:-1] if own.is_inline else own.path.split(".")
    recipe = _edit_at(root, ["recipe", *home], lambda node: _base_with(node, own, rests[own.path], new), new.mark)
    is_inherited = own.is_inline and recipe is not root

    def levels(node: Node) -> Node:
        if not isinstance(node, Mapping):
            return node
        entries = (
            replace(e, value=_with(e.value, by_path[e.key], rests[e.key], new, keep_names=is_inherited))
            if e.key in by_path
            else e
            for e in node.entries
        )
        return replace(node, entries=tuple(entries))

    return _edit_grid(recipe, levels), {path, *(place.path for place in places if not place.is_inline)}


def _base_with(node: Node | None, place: Place, rest: str, new: Entry) -> Node | None:
    """Return what the recipe has at a place, with a setting of the adapter there; None where there is no adapter."""
    default = Scalar(registry.INSTALLED.default(place.path), new.mark)
    if not place.is_inline:
        found = node or default
        return _with(found, place, rest, new) if found.plain is not None else node
    section = node if isinstance(node, Mapping) else Mapping((), new.mark)
    named = section.get("use") or Entry("use", new.mark, default)
    if isinstance(named.value, Mapping):
        return _put(section, ["use"], replace(named, value=_with(named.value, place, rest, new)))
    whole = _put(section, ["use"], named)
    changed = _with(whole, place, rest, new)
    return node if changed is whole else changed


def _with(node: Node, place: Place, rest: str, new: Entry, *, keep_names: bool = False) -> Node:
    """Return adapters (one, a list, or levels of them) with a setting; those that have no such setting stay as they are.

    Args:
        node: The adapters.
        place: Where they stand.
        rest: The setting's path inside the place.
        new: Its value.
        keep_names: Leave alone what is but a name, because the recipe's settings are carried over to it.
    """
    if isinstance(node, yaml_nodes.Sequence):
        return replace(node, items=tuple(_with(item, place, rest, new, keep_names=keep_names) for item in node.items))
    try:
        reference = Reference.read(node.plain)
        model = registry.settings_of(place.kind, reference.name)
        argument = {} if reference.argument is None else model.of_argument(reference.argument)
    except (ValueError, UnknownAdapterError):
        return node  # it is a problem in its own place
    if place.is_list and not rest.startswith(f"{reference.name}."):
        return node
    rest = rest.removeprefix(f"{reference.name}.") if place.is_list else rest
    name, _, more = rest.partition(".")
    if name not in model.model_fields or (keep_names and isinstance(node, Scalar)):
        return node
    whole = node if isinstance(node, Mapping) else Mapping((Entry("use", node.mark, node),), node.mark)
    if name in argument:  # the short form gives it already: write that out
        named = f"{reference.name}@{reference.account}" if reference.account else reference.name
        for key, value in ({"use": named} | argument).items():
            whole = _put(whole, [key], Entry(key, node.mark, yaml_nodes.of_plain(value, node.mark)))
    return _with_inside(whole, model.model_fields[name], name, more, new) if more else _put(whole, [name], new)


def _with_inside(whole: Mapping, declared: FieldInfo, name: str, rest: str, new: Entry) -> Mapping:
    """Return an adapter with a setting of an adapter that is itself a setting."""
    kind, entry = kind_of(declared), whole.get(name)
    if kind is None:  # a section in the settings
        return _put(whole, [name, *rest.split(".")], new)
    default = declared.get_default(call_default_factory=True, validated_data={})
    written = plain(default) if isinstance(default, Use) else default
    value = entry.value if entry is not None else yaml_nodes.of_plain(written, new.mark)
    changed = _with(value, Place(name, kind, is_list(declared)), rest, new)
    return _put(whole, [name], replace(new, value=changed))


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
        inside = old.value if old is not None and isinstance(old.value, Mapping) else Mapping((), new.mark)
        value = _put(inside, rest, new)
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


def _edit_grid(root: Mapping, edit: Callable[[Node], Node]) -> Mapping:
    """Return `root` with every mapping of paths in its grid edited."""

    def whens(node: Node) -> Node:
        return _edit(_edit(node, "if", edit), "axes", edit) if isinstance(node, Mapping) else node

    edits = {"axes": edit, "zip": _each(edit), "when": _each(whens), "exclude": _each(edit), "include": _each(edit)}
    for key, change in edits.items():
        root = _edit(root, key, change)
    return root


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


def _edit_at(mapping: Mapping, keys: Sequence[str], edit: Callable[[Node | None], Node | None], mark: Mark) -> Mapping:
    """Return `mapping` with the value at `keys` edited, or made when the edit makes one of nothing."""
    key, *rest = keys
    entry = mapping.get(key)
    old = entry.value if entry is not None else None
    new: Node | None = old
    if not rest:
        new = edit(old)
    elif old is None or isinstance(old, Mapping):
        inside = old or Mapping((), mark)
        edited = _edit_at(inside, rest, edit, mark)
        new = old if edited is inside else edited
    if new is None or new is old:
        return mapping
    return _put(mapping, [key], Entry(key, entry.mark if entry is not None else mark, new))
