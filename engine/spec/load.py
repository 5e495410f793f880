"""YAML to a validated Sweep, or to every problem at once: file, line, column, path, and what to do.

This is the only place where a spec is dicts and lists; past it there are only the domain's frozen models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from engine.domain.errors import SpecError
from engine.domain.sweep import Header, Recipe, RunSettings, Sweep
from engine.spec import yaml_nodes
from engine.spec.grid import GridReader
from engine.spec.leaves import CONTEXT, CONTEXT_OF_UNFINISHED, Leaves
from engine.spec.messages import closest, findings, wrong_type
from engine.spec.origins import inner
from engine.spec.overrides import override, rename
from engine.spec.positions import Finding, Mark, Positions, Problems, Source, visible
from engine.spec.yaml_nodes import Map, Plain, join

MAX_BYTES = 2**20
"""A larger file is refused: it is data, not a spec."""

SECRETIVE = (".key_env", ".base_url")
"""Fields into which people paste keys and passwords: what stands there is not shown again."""

FIELDS = ("sweep", "description", "recipe", "axes", "zip", "when", "exclude", "include", "baselines", "run")

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class LoadedSweep:
    """A validated sweep, and where each part of it was written: what gives later problems a position."""

    sweep: Sweep
    positions: Positions


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> LoadedSweep:
    """Read and validate a spec.

    Args:
        path: The YAML file, at most 1 MiB of UTF-8.
        overrides: `PATH=VALUE` texts, as `--set` takes them; a later one wins.

    Raises:
        SpecError: The file cannot be read, or something in it or in an override is wrong.
    """
    name = str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        what = f"cannot read the file: {error.strerror or error}"
        raise SpecError((Mark(Source(name, ()), 1, 1).problem("", what, code="cannot_read"),)) from error
    return read_sweep(raw, name, overrides)


def read_sweep(raw: bytes, name: str, overrides: Sequence[str] = ()) -> LoadedSweep:
    """Validate the bytes of a spec, which problems call `name`; `load_sweep` says more."""
    problems = Problems()
    source, text = _text(raw, visible(name), problems)
    start = Mark(source, 1, 1)
    root = _root(source, text, problems)
    spec = Map() if root is None else root
    rename(spec, problems)
    before = {key: yaml_nodes.placed(value, start) for key, value in spec.items()}
    overridden = override(spec, overrides, problems)
    if root is None:
        problems.stop_if_any()  # there is a problem whenever there is no tree
    positions = yaml_nodes.positions(spec, start, overridden)
    # What only the file names counts as well: an axis of a mitigation that `--set` has taken out is no typo.
    leaves = Leaves.of(spec, before)
    return LoadedSweep(_Reading(spec, leaves, positions, problems).sweep(), positions)


def _text(raw: bytes, name: str, problems: Problems) -> tuple[Source, str]:
    """Return the text of a spec; text that cannot be used is a problem, and empty."""
    if len(raw) <= MAX_BYTES:
        return yaml_nodes.decoded(raw, name, problems)
    nothing = Source(name, ("",))
    hint = "a spec names its data; it does not hold it"
    problems.add(Mark(nothing, 1, 1).problem("", "larger than 1 MiB", code="too_large", hint=hint))
    return nothing, ""


def _root(source: Source, text: str, problems: Problems) -> Map | None:
    """Return what a spec says, or None and at least one problem."""
    found = yaml_nodes.compose(source, text, problems)
    if found is not None:
        value, mark = found
        if isinstance(value, Map):
            return value
        finding = wrong_type("", "a mapping of fields", value)
        problems.add(mark.problem("", finding.what, code=finding.code, hint="a spec begins with `sweep: NAME`"))
    elif not problems.found:
        hint = "`dosimeter init NAME` writes a spec to begin from"
        problems.add(Mark(source, 1, 1).problem("", "the file has no YAML in it", code="empty_file", hint=hint))
    return None


@dataclass(frozen=True, slots=True)
class _Reading:
    """Reads what one file says into a Sweep."""

    root: Map
    leaves: Leaves
    positions: Positions
    problems: Problems

    def sweep(self) -> Sweep:
        """Return the sweep.

        Raises:
            SpecError: Anything was wrong, here or before.
        """
        self._unknown_fields()
        header = self._valid("", Header, {key: self.root[key] for key in Header.model_fields if self._is_written(key)})
        recipe = self._recipe() if "recipe" in self.root else None
        run = self._valid("run", RunSettings, self.root["run"]) if self._is_written("run") else RunSettings()
        grid = GridReader(self.root, self.leaves, recipe, self.positions, self.problems).read()
        self.problems.stop_if_any()
        parts: dict[str, Any] = {**grid._asdict(), "recipe": recipe, "run": run}
        return Sweep(**parts, **dict(header or ()))

    def _is_written(self, key: str) -> bool:
        return key in self.root and (self.root[key] is not None or key == "sweep")

    def _add(self, finding: Finding) -> None:
        problem = self.positions.place(finding)
        self.problems.add(replace(problem, excerpt="") if finding.path.endswith(SECRETIVE) else problem)

    def _unknown_fields(self) -> None:
        for key in self.root.keys() - set(FIELDS):
            where = join("", key)
            self._add(Finding(where, "no such field", "unknown_field", closest(key, FIELDS), at_key=True))
        for key in ("sweep", "recipe"):
            if key not in self.root:
                self._add(Finding(key, "this field is required", "missing_field", f"add `{key}:`"))

    def _valid(self, key: str, model: type[Model], written: Plain) -> Model | None:
        """Return what is written as its model, or None and at least one problem."""
        try:
            return model.model_validate(written, context=CONTEXT)
        except ValidationError as error:
            for finding in findings(error, key, model):
                self._add(finding)
            return None

    def _recipe(self) -> Recipe | None:
        """Return the recipe; a setting beside `tune.use` or `generate.use` that every combination sweeps may be missing."""
        written = self.root["recipe"]
        try:
            return Recipe.model_validate(written, context=CONTEXT)
        except ValidationError as error:
            found = list(findings(error, "recipe", Recipe))
        swept = self._swept()
        paths = [finding.path.removeprefix("recipe.") if finding.code == "missing_field" else "" for finding in found]
        if all(inner(path) != path and path in swept for path in paths):
            return Recipe.model_validate(written, context=CONTEXT_OF_UNFINISHED)
        for finding, path in zip(found, paths, strict=True):
            hint = (
                f"`{swept[path]}` varies it; the recipe needs a value of its own as well"
                if path in swept
                else finding.hint
            )
            self._add(replace(finding, hint=hint))
        return None

    def _swept(self) -> dict[str, str]:
        """Return the paths that every combination sweeps, and where."""
        zips, axes = self.root.get("zip"), self.root.get("axes")
        swept = {
            path: "zip"
            for group in (zips if isinstance(zips, list) else ())
            if isinstance(group, dict)
            for path in group
        }
        return swept | {path: f"axes.{path}" for path in (axes if isinstance(axes, dict) else ())}
