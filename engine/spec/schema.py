"""The JSON Schema of a spec, draft-07 (what YAML editors read), so that they complete and check while one types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from engine.domain.sweep import Recipe, RunSettings, Sweep
from engine.spec.leaves import LEAVES, Leaf

Schema: TypeAlias = dict[str, Any]

_REF = "#/definitions/{model}"


def json_schema() -> Schema:
    """Return the schema of a whole spec."""
    _, models = models_json_schema([(Recipe, "validation"), (RunSettings, "validation")], ref_template=_REF)
    definitions = {name: _draft_07(schema) for name, schema in models["$defs"].items()}
    definitions |= _grid_definitions()
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Dosimeter sweep",
        "description": "A grid of fine-tuning experiments.",
        "type": "object",
        "additionalProperties": False,
        "required": ["sweep", "recipe"],
        "properties": {
            "sweep": _own_field("sweep"),
            "description": _own_field("description"),
            "recipe": _ref("Recipe", "The recipe that every cell begins from; all of it bears identity."),
            "axes": _or_null(_ref("Axes", "Levels by path; the cells are the product of the axes.")),
            "zip": _list_of("Axes", "Axes that are walked together; each item multiplies the grid once."),
            "when": _list_of("When", "Axes for those combinations only that match a condition; applied in order."),
            "exclude": _list_of("Patterns", "Combinations to drop: those that match every path of an item."),
            "include": _list_of("Levels", "Levels to add, or further combinations, as in a GitHub Actions matrix."),
            "baselines": _own_field("baselines"),
            "run": _or_null(_ref("RunSettings", "How the sweep is run; may change without re-running a cell.")),
        },
        "definitions": definitions,
    }


def _own_field(name: str) -> Schema:
    schema = TypeAdapter[Any](Sweep.model_fields[name].rebuild_annotation()).json_schema()
    return {**_draft_07(schema), "description": Sweep.model_fields[name].description}


def _ref(name: str, description: str) -> Schema:
    # Draft-07 ignores whatever stands beside a `$ref`.
    return {"description": description, "allOf": [{"$ref": _REF.format(model=name)}]}


def _or_null(schema: Schema) -> Schema:
    """Allow `axes:` with every line below it commented out."""
    return {"description": schema["description"], "anyOf": [*schema["allOf"], {"type": "null"}]}


def _list_of(name: str, description: str) -> Schema:
    return {"description": description, "type": ["array", "null"], "items": {"$ref": _REF.format(model=name)}}


def _grid_definitions() -> Schema:
    levels = {path: _level(leaf) for path, leaf in LEAVES.items()}
    when: Schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["if", "axes"],
        "properties": {
            "if": _ref("Patterns", "The condition: every path must have one of its levels."),
            "axes": _ref("Axes", "Axes for the combinations that match."),
        },
    }
    return {
        "Axes": _paths((path, _many(schema)) for path, schema in levels.items()),
        "Patterns": _paths((path, _one_or_many(schema)) for path, schema in levels.items()),
        "Levels": _paths(levels.items()),
        "When": when,
    }


def _paths(properties: Iterable[tuple[str, Schema]]) -> Schema:
    return {"type": "object", "additionalProperties": False, "minProperties": 1, "properties": dict(properties)}


def _level(leaf: Leaf) -> Schema:
    schema = _draft_07(leaf.kind.json_schema(ref_template=_REF))
    schema.pop("default", None)
    return {**schema, "description": leaf.field.description}


def _many(level: Schema) -> Schema:
    description = f"Levels. {level['description']}"
    return {"description": description, "type": "array", "minItems": 1, "uniqueItems": True, "items": level}


def _one_or_many(level: Schema) -> Schema:
    return {"description": level["description"], "anyOf": [level, _many(level)]}


def _draft_07(schema: Any) -> Any:
    """Return a 2020-12 schema of pydantic's in the words of draft-07.

    Raises:
        ValueError: It has a keyword that draft-07 lacks.
    """
    if isinstance(schema, list):
        return [_draft_07(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    lacking = {"prefixItems", "$dynamicRef", "dependentRequired", "dependentSchemas", "unevaluatedProperties"} & set(
        schema
    )
    if lacking:
        message = f"draft-07 has no {', '.join(sorted(lacking))}; teach engine.spec.schema to translate it"
        raise ValueError(message)
    # pydantic's titles only repeat the names; a property that is itself called `title` is a mapping and stays.
    translated = {k: _draft_07(v) for k, v in schema.items() if not (k == "title" and isinstance(v, str))}
    if "$ref" in translated and len(translated) > 1:
        translated["allOf"] = [{"$ref": translated.pop("$ref")}]
    return translated
