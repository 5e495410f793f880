"""The JSON Schema of a spec, draft-07 (what YAML editors read), so that they complete and check while one types.

It is made from what is installed: an adapter's settings are known where its name stands, as fields and as paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from engine import registry
from engine.domain.adapters import ADAPTER_KEYWORD, ADAPTER_PATTERN, Kind, Settings
from engine.domain.sweep import Header, Recipe, RunSettings
from engine.spec.leaves import INLINE, OLD_NAMES, Leaf, Leaves, installed, section_model

Schema: TypeAlias = dict[str, Any]

TITLE = "Dosimeter sweep"
"""The title of the schema of a whole spec, by which a file is told to be one."""

_DEFINITIONS = "#/definitions/"
_NULL: Schema = {"type": "null"}
_KINDS = (Kind.MODEL, Kind.DATA, Kind.TUNER, Kind.MITIGATION, Kind.BENCHMARK, Kind.GENERATOR, Kind.JUDGE)


def json_schema() -> Schema:
    """Return the schema of a whole spec."""
    leaves = Leaves.of_installed()
    definitions = _own_definitions(leaves) | _adapter_definitions() | _grid_definitions(leaves)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": TITLE,
        "description": "A grid of fine-tuning experiments.",
        "type": "object",
        "additionalProperties": False,
        "required": ["sweep", "recipe"],
        "properties": {
            "sweep": _field(Header, "sweep"),
            "description": _field(Header, "description"),
            "recipe": _ref("Recipe", "The recipe that every cell begins from; all of it is part of the cells' keys."),
            "axes": _or_null(_ref("Axes", "Levels by path; the cells are the product of the axes.")),
            "zip": _list_of("Zip", "Axes that are walked together; each item multiplies the grid once."),
            "when": _list_of("When", "Axes for those combinations only that match a condition; applied in order."),
            "exclude": _list_of("Patterns", "Combinations to drop: those that match every path of an item."),
            "include": _list_of("Levels", "Levels to add, or further combinations, as in a GitHub Actions matrix."),
            "baselines": _field(Header, "baselines"),
            "run": _or_null(_ref("RunSettings", "How the sweep is run; may change without re-running a cell.")),
        },
        "definitions": definitions,
    }


def _ref(name: str, description: str) -> Schema:
    # Draft-07 ignores whatever stands beside a `$ref`.
    return {"description": description, "allOf": [{"$ref": _DEFINITIONS + name}]}


def _or_null(schema: Schema) -> Schema:
    """Allow `axes:` with every line below it commented out."""
    return {"description": schema["description"], "anyOf": [*schema["allOf"], _NULL]}


def _list_of(name: str, description: str) -> Schema:
    return {"description": description, "type": ["array", "null"], "items": {"$ref": _DEFINITIONS + name}}


def _object(properties: Mapping[str, Schema], **more: object) -> Schema:
    return {"type": "object", "additionalProperties": False, **more, "properties": dict(properties)}


def _own_definitions(leaves: Leaves) -> Schema:
    """Return the definitions of the engine's own sections, with the settings that stand inline in some of them."""
    template = _DEFINITIONS + "{model}"
    _, models = models_json_schema([(Recipe, "validation"), (RunSettings, "validation")], ref_template=template)
    definitions: Schema = {name: _draft_07(schema) for name, schema in models["$defs"].items()}
    recipe = definitions["Recipe"]
    for section, place in INLINE.items():
        model = section_model(Recipe.model_fields[section])
        if model is None:
            continue
        schema = definitions[model.__name__]
        prefix = f"{section}."
        settings = {path: leaf for path, leaf in leaves.by_path.items() if path.startswith(prefix) and leaf.adapters}
        own = schema["properties"]
        old = {old.removeprefix(prefix): own["use"] for old, new in OLD_NAMES.items() if new == place}
        schema["properties"] = {
            **own,
            **{path.removeprefix(prefix): _value(leaf) for path, leaf in settings.items()},
            **old,
        }
        schema["required"] = [name for name in schema.get("required", ()) if name != "use"]
    filled_in = {
        path.partition(".")[0] for path in (*INLINE.values(), *recipe["properties"]) if registry.INSTALLED.default(path)
    }
    recipe["required"] = [name for name in recipe["required"] if name not in filled_in]
    return definitions


def _adapter_definitions() -> Schema:
    """Return, for each kind of adapter, what may stand where one does; and what the settings refer to."""
    definitions: Schema = {}
    for kind in _KINDS:
        adapters = dict(installed(kind))
        short = {
            "description": "`name` or `name:argument`.",
            "type": "string",
            "pattern": ADAPTER_PATTERN,
            "examples": list(adapters),
        }
        uses = [_use(name, settings) for name, settings in adapters.items()]
        definitions[f"use-{kind.value}"] = {"description": f"A {kind.noun}.", "anyOf": [short, *uses]}
        for settings in adapters.values():
            definitions |= _model(settings)["definitions"]
    return definitions


def _use(name: str, settings: type[Settings]) -> Schema:
    longer = {"type": "string", "pattern": f"^{re.escape(name)}[@:].+$"}
    named = {"description": "The adapter's name.", "anyOf": [{"const": name}, longer]}
    return _object({"use": named, **_model(settings)["properties"]}, required=["use"])


@cache
def _model(model: type[BaseModel]) -> Schema:
    """Return the properties of a model, and the definitions that they refer to, under names that no other model's have."""
    scope = "" if model.__module__.startswith("engine.") else f"{model.__module__}.{model.__qualname__}."
    schema = model.model_json_schema(ref_template=f"{_DEFINITIONS}{scope}{{model}}")
    definitions = {f"{scope}{name}": _draft_07(inner) for name, inner in schema.get("$defs", {}).items()}
    return {"properties": _draft_07(schema.get("properties", {})), "definitions": definitions}


def _field(model: type[BaseModel], name: str) -> Schema:
    schema: Schema = _model(model)["properties"][name]
    return schema


def _value(leaf: Leaf) -> Schema:
    """Return the schema of a leaf's value: of one adapter's setting, or of what several call the same."""
    schemas: list[Schema] = []
    for model, name in leaf.declared:
        if (schema := _field(model, name)) not in schemas:
            schemas.append(schema)
    return schemas[0] if len(schemas) == 1 else {"description": leaf.field.description, "anyOf": schemas}


def _level(leaf: Leaf) -> Schema:
    value = {key: part for key, part in _value(leaf).items() if key != "default"}
    if leaf.adapters:  # nothing is a level of every setting
        value = {"anyOf": [value, _NULL]}
    return {**value, "description": leaf.field.description}


def _many(level: Schema, *, once: bool = True) -> Schema:
    description = f"Levels. {level['description']}"
    more = {"uniqueItems": True} if once else {}
    return {"description": description, "type": "array", "minItems": 1, **more, "items": level}


def _one_or_many(level: Schema) -> Schema:
    return {"description": level["description"], "anyOf": [level, _many(level)]}


def _grid_definitions(leaves: Leaves) -> Schema:
    levels = {path: _level(leaf) for path, leaf in leaves.by_path.items()}
    levels |= {old: levels[new] for old, new in OLD_NAMES.items()}
    # A setting that is itself an adapter has settings of its own; which, the loader knows.
    deeper = [f"^{re.escape(path)}\\..+$" for path, leaf in leaves.by_path.items() if leaf.adapters and leaf.kind]

    def paths(properties: Iterable[tuple[str, Schema]]) -> Schema:
        return _object(dict(properties), minProperties=1, patternProperties={pattern: {} for pattern in deeper})

    condition = _ref("Patterns", "The condition: every path must have one of its levels.")
    axes = _ref("Axes", "Axes for the combinations that match.")
    return {
        "Axes": paths((path, _many(schema)) for path, schema in levels.items()),
        "Zip": paths((path, _many(schema, once=False)) for path, schema in levels.items()),
        "Patterns": paths((path, _one_or_many(schema)) for path, schema in levels.items()),
        "Levels": paths(levels.items()),
        "When": _object({"if": condition, "axes": axes}, required=["if", "axes"]),
    }


_LACKING = frozenset({"prefixItems", "$dynamicRef", "dependentRequired", "dependentSchemas", "unevaluatedProperties"})


def _draft_07(schema: Any) -> Any:
    """Return a 2020-12 schema of pydantic's in the words of draft-07.

    Raises:
        ValueError: It has a keyword that draft-07 lacks.
    """
    if isinstance(schema, list):
        return [_draft_07(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    if lacking := _LACKING & set(schema):
        raise ValueError(f"draft-07 has no {', '.join(sorted(lacking))}; teach engine.spec.schema to translate it")
    # A property that is itself called `title` or `also` is a mapping and stays; the rest is pydantic's, or for messages.
    needless = {"title": str, "also": list}
    translated = {k: _draft_07(v) for k, v in schema.items() if not isinstance(v, needless.get(k, ()))}
    if isinstance(kind := translated.get(ADAPTER_KEYWORD), str):
        del translated[ADAPTER_KEYWORD]
        translated["$ref"] = f"{_DEFINITIONS}use-{kind}"
    if "$ref" in translated and len(translated) > 1:
        translated["allOf"] = [{"$ref": translated.pop("$ref")}]
    return translated
