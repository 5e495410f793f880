"""`--set PATH=VALUE`: edits of what a spec says before it is validated, so that they are checked like the file itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydantic.fields import FieldInfo

from engine import registry
from engine.domain.adapters import Reference, Use, kind_of, plain
from engine.spec.leaves import INLINE, OLD_NAMES, Leaves, Place, groups, is_list
from engine.spec.messages import ambiguous, unknown_path
from engine.spec.origins import inner, is_setting_in
from engine.spec.positions import SET, Finding, Mark, Problems, Source
from engine.spec.yaml_nodes import Map, Plain, Seq, compose, join, placed

_WHOLE = ("sweep", "description", "baselines")
_GRID = ("axes", "zip", "when", "exclude", "include")
_RUN = ("run.max_cells", "run.budget.usd", "run.keep_weights")


@dataclass(frozen=True, slots=True)
class _Override:
    """One `--set PATH=VALUE`, and where the path and the value stand."""

    path: str
    value: Plain
    place: tuple[Mark, Mark]

    @property
    def mark(self) -> Mark:
        """Where it begins."""
        return self.place[0]


def rename(root: Map, problems: Problems) -> None:
    """Give the fields of a spec that have old names those of today."""
    for group in _grid(root):
        _rename(group, "", problems)
    recipe = root.get("recipe")
    for name in INLINE:
        section = recipe.get(name) if isinstance(recipe, Map) else None
        if isinstance(section, Map):
            _rename(section, f"{name}.", problems)


def _rename(fields: Map, section: str, problems: Problems) -> None:
    entries = [(key, value, fields.places[key]) for key, value in fields.items()]
    names = {key: OLD_NAMES.get(section + key, section + key).removeprefix(section) for key in fields}
    fields.clear()
    for key, value, place in entries:
        if names[key] != key and names[key] in names:
            what, hint = f"`{key}` is an old name of `{names[key]}`, and both are given", "remove one of the two"
            where = f"recipe.{section}{key}" if section else key
            problems.add(place[0].problem(where, what, code="duplicate_key", hint=hint))
        else:
            fields.put(names[key], value, place)


def _grid(root: Map) -> list[Map]:
    """Return every mapping of paths in a spec's grid."""
    return [group for group in groups(root, patterns=True) if isinstance(group, Map)]


def override(root: Map, texts: Iterable[str], problems: Problems) -> frozenset[str]:
    """Apply overrides to a spec, in order; a later one wins.

    Returns:
        The recipe paths that were changed.
    """
    overrides = list(_overrides(texts, problems))
    leaves = Leaves.of(root, *({**root, "axes": {_leaf_path(new.path): new.value}} for new in overrides))
    return frozenset(path for new in overrides for path in _apply(root, new, leaves, problems))


def put_all(root: Map, texts: Iterable[str], problems: Problems) -> None:
    """Apply overrides wherever their paths lead; for files that are no spec."""
    for new in _overrides(texts, problems):
        _put(root, new.path.split("."), new.value, new.place)


def _overrides(texts: Iterable[str], problems: Problems) -> Iterator[_Override]:
    """Yield each override that can be read."""
    for number, text in enumerate(texts, start=1):
        source = Source.of(SET, text, number)
        begin = Mark(source, number, 1)
        path, equals, value = text.partition("=")
        if not equals:
            problems.add(begin.problem("", "expected PATH=VALUE", code="bad_override", hint="such as tune.lr=1e-3"))
            continue
        # Blanks in place of the path leave the value's columns as the user sees them.
        blank = " " * (len(path) + 1)
        count = len(problems.found)
        found = compose(source, blank + value, problems, join("", path.strip()))
        if len(problems.found) == count:
            given, mark = found or (None, Mark(source, number, len(blank) + 1))
            yield _Override(path.strip(), given, (begin, mark))


def _leaf_path(path: str) -> str:
    """Return the recipe's path that an override is for."""
    head, _, rest = path.partition(".")
    path = rest if head in {"recipe", "axes"} else path
    return OLD_NAMES.get(path, path)


def _apply(root: Map, new: _Override, leaves: Leaves, problems: Problems) -> set[str]:
    """Apply one override, and return the recipe paths that were changed."""
    head, _, rest = new.path.partition(".")
    path = _leaf_path(new.path)
    if new.path in _WHOLE or (head == "run" and rest):
        _put(root, new.path.split("."), new.value, new.place)
        return set()
    leaf = leaves.by_path.get(path)
    if leaf is None or path.startswith(tuple(leaves.doubled)):
        where = join("", new.path)
        finding = _unknown(where, path, leaves) if leaf is None else ambiguous(path, where)
        problems.add(new.mark.problem(where, finding.what, code=finding.code, hint=finding.hint))
        return set()
    is_axis = head == "axes" or leaf.are_levels(new.value)
    _unsweep(root, path, keep_axis=is_axis)
    if leaf.adapters and not is_axis:
        return _everywhere(root, path, leaves, new)
    _put(root, ["axes", path] if is_axis else ["recipe", *path.split(".")], new.value, new.place)
    return {path}


def _unknown(key: str, path: str, leaves: Leaves) -> Finding:
    if key.partition(".")[0] in _GRID and path == key:
        hint = "of the grid, only axes can be set: axes.PATH=[LEVELS]"
        return Finding(key, "nothing to set here", "unknown_path", hint)
    return unknown_path(leaves, path, key, (*_WHOLE, *_RUN))


def _everywhere(root: Map, path: str, leaves: Leaves, new: _Override) -> set[str]:
    """Set an adapter's setting wherever the spec names the adapter; return the changed paths."""
    places = {name: place for name, place in leaves.places.items() if is_setting_in(name, path)}
    rests = {place: inner(path).removeprefix(f"{place}.") for place in places}
    own = min(places.values(), key=lambda place: len(place.path))
    is_inherited = _in_recipe(root, own, rests[own.path], new) and own.is_inline
    for group in _grid(root):
        for name in group.keys() & places.keys():
            at = group.places[name]
            changed = _with(group[name], at[1], places[name], rests[name], new, keep_names=is_inherited)
            group.put(name, group[name] if changed is None else changed, at)
    return {path, *(place.path for place in places.values() if not place.is_inline)}


def _in_recipe(root: Map, own: Place, rest: str, new: _Override) -> bool:
    """Set a setting of the adapter that the recipe has at a place; tell whether there is one that has the setting."""
    *way, key = own.path.removesuffix(".use" if own.is_inline else "").split(".")
    holder = root.get("recipe")
    for name in way:
        holder = holder.get(name) if isinstance(holder, Map) else None
    if not isinstance(holder, Map):
        return False
    given, default = holder.get(key), registry.INSTALLED.default(own.path)
    if own.is_inline:
        section = given if isinstance(given, Map) else Map()
        if isinstance(section.get("use"), Map):
            holder, key, given = section, "use", section["use"]
        else:  # the settings stand beside the adapter's name
            given = Map()
            for name, value in ({"use": default} | section).items():
                given.put(name, value, section.places.get(name, (new.mark, new.mark)))
    at = holder.places.get(key, (new.mark, new.mark))
    changed = _with(default if given is None else given, at[1], own, rest, new)
    if changed is not None:
        holder.put(key, changed, at)
    return changed is not None


def _with(given: Plain, at: Mark, place: Place, rest: str, new: _Override, *, keep_names: bool = False) -> Plain:
    """Return adapters (one, a list, or levels of them) with a setting; None where none of them has it.

    Args:
        given: The adapters; mappings and lists of them are changed themselves.
        at: Where they are written.
        place: Where they stand.
        rest: The setting's path inside the place.
        new: Its value.
        keep_names: Leave alone what is but a name, because the recipe's settings are carried over to it.
    """
    if isinstance(given, Seq):
        changed = [
            _with(item, mark, place, rest, new, keep_names=keep_names)
            for item, mark in zip(given, given.places, strict=True)
        ]
        given[:] = [item if one is None else one for item, one in zip(given, changed, strict=True)]
        return given if any(one is not None for one in changed) else None
    try:
        reference = Reference.read(given)
        model = registry.settings_of(place.kind, reference.name)
        argument = {} if reference.argument is None else model.of_argument(reference.argument)
    except ValueError:
        return None  # it is a problem in its own place
    if place.is_list and not rest.startswith(f"{reference.name}."):
        return None
    name, _, more = (rest.removeprefix(f"{reference.name}.") if place.is_list else rest).partition(".")
    if name not in model.model_fields or (keep_names and not isinstance(given, Map)):
        return None
    named = Use(reference.name, account=reference.account).reference
    # A short form that gives the setting already becomes a mapping first.
    written = {"use": named} | argument if name in argument else {} if isinstance(given, Map) else {"use": given}
    whole = given if isinstance(given, Map) else Map()
    for key, value in written.items():
        whole.put(key, placed(value, at), (at, at))
    _inside(whole, model.model_fields[name], name, more, new)
    return whole


def _inside(whole: Map, declared: FieldInfo, name: str, rest: str, new: _Override) -> None:
    """Set a setting of an adapter, or what is further inside it: of a section, or of an adapter that is itself a setting."""
    kind = kind_of(declared)
    if kind is None or not rest:
        _put(whole, [name, *(rest.split(".") if rest else ())], new.value, new.place)
        return
    default = declared.get_default(call_default_factory=True, validated_data={})
    given = whole[name] if name in whole else placed(plain(default) if isinstance(default, Use) else default, new.mark)
    at = whole.places.get(name, (new.mark, new.mark))
    changed = _with(given, at[1], Place(name, kind, is_list(declared)), rest, new)
    whole.put(name, given if changed is None else changed, at)


def _put(root: Map, keys: Sequence[str], value: Plain, place: tuple[Mark, Mark]) -> None:
    """Set the value at `keys`; what is missing on the way, or is no mapping, is made."""
    *way, last = keys
    for key in way:
        inside = root.get(key)
        if not isinstance(inside, Map):
            inside = Map()
            root.put(key, inside, (place[0], place[0]))
        root = inside
    root.put(last, value, place)


def _unsweep(root: Map, path: str, *, keep_axis: bool) -> None:
    """Take `path` out of what sweeps it; what that leaves empty goes too."""
    for section in ("zip", "when"):
        items = root.get(section)
        if not isinstance(items, Seq):
            continue
        for index, item in reversed(list(enumerate(items))):
            group = item.get("axes") if section == "when" and isinstance(item, Map) else item
            if isinstance(group, Map) and group.pop(path, root) is not root and not group:
                del items[index], items.places[index]
    axes = root.get("axes")
    if not keep_axis and isinstance(axes, Map) and axes.pop(path, root) is not root and not axes:
        del root["axes"]
