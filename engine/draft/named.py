"""What somebody named on the command line: an adapter as a spec has it, or a path, whose adapter is looked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine import registry
from engine.domain.adapters import Kind, Reference, SettingsError, Use
from engine.domain.errors import PlanError, UnknownAdapterError
from engine.ports import Claim, ReadsPaths
from engine.spec import yaml_nodes
from engine.spec.messages import findings
from engine.spec.positions import Problems, Source, visible


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was named.

    Attributes:
        use: The adapter, as it is set.
        columns: The columns by which its file was told from others; none where the person named the adapter.
        others: Names of adapters that may have been meant.
    """

    use: Use
    columns: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def named(kind: Kind, text: str, option: str, *, has_references: bool = False) -> Chosen:
    """Return what is meant by a text.

    A text that is the name of an installed adapter, or begins with one and a colon, is that adapter; one that begins with `{` is
    an adapter with settings, as a spec has it. Anything else is a path.

    Args:
        kind: The kind of adapter.
        text: What was written.
        option: Where, for errors.
        has_references: Of a benchmark given by its path, whether its prompts are to have right answers.

    Raises:
        PlanError: There is no such adapter or file, its settings are wrong, or no adapter reads it.
        SpecError: It begins with `{` and is no YAML.
    """
    if text.startswith("{"):
        return Chosen(_use(kind, _mapping(text, option), option))
    if Reference.read(text).name in registry.names(kind):
        return Chosen(_use(kind, text, option))
    path = Path(text).expanduser()
    if any("\ud800" <= one <= "\udfff" for one in text):
        raise PlanError("the path is no UTF-8 text, and a spec is", where=visible(text), todo="rename the file")
    if not path.exists():
        name, colon, _ = text.partition(":")
        todo = (
            registry.suggest(name, registry.names(kind)) if colon else "paths are read from the folder that you are in"
        )
        what = f"no {kind.noun} is called `{visible(name)}`, and there is no such file or folder"
        raise PlanError(
            what if colon else "there is no such file or folder", where=f"{option} {visible(text)}", todo=todo
        )
    return _of_path(kind, text, option, has_references=has_references)


def written(use: Use) -> object:
    """Return an adapter as a spec has it: `name:argument` where that says all, else a mapping."""
    argument, settings = use.argument, use.settings
    covered = settings.of_argument(argument) if argument else {}
    if rest := {name: value for name, value in settings.written().items() if name not in covered}:
        return {"use": f"{use.reference}:{argument}" if argument else use.reference} | {
            name: _plain(value) for name, value in rest.items()
        }
    return f"{use.reference}:{argument}" if argument else use.reference


def _plain(value: object) -> object:
    if isinstance(value, Use):
        return written(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def with_setting(kind: Kind, use: Use, **settings: object) -> Use | None:
    """Return an adapter with further settings, or None where it does not have these."""
    if not settings.keys() <= type(use.settings).model_fields.keys():
        return None
    given = {name: getattr(use.settings, name) for name in use.settings.model_fields_set}
    model = registry.settings_of(kind, use.name)
    return Use(use.name, model.model_validate(given | settings, context=registry.CONTEXT_OF_INSTALLED), use.account)


def _mapping(text: str, option: str) -> object:
    problems = Problems()
    found = yaml_nodes.compose(Source.of(option, text), text, problems)
    problems.stop_if_any()
    return found[0] if found else None


def _use(kind: Kind, given: object, option: str) -> Use:
    try:
        return registry.INSTALLED.use(kind, given)
    except SettingsError as error:
        finding = next(findings(error.error, "", error.model))
        what = f"`{error.name}`: {finding.path}: {finding.what}" if finding.path else f"`{error.name}`: {finding.what}"
        raise PlanError(what, where=option, todo=finding.hint) from error
    except UnknownAdapterError as error:
        raise PlanError(error.what, where=option, todo=error.todo) from error
    except ValueError as error:
        raise PlanError(visible(str(error)), where=option) from error


def _of_path(kind: Kind, text: str, option: str, *, has_references: bool) -> Chosen:
    claims = _claims(kind, text)
    own = {
        name: claim for name, claim in claims.items() if not claim.is_general and claim.has_references == has_references
    }
    best = {name: one for name, one in own.items() if not any(one.columns < other.columns for other in own.values())}
    sure = [name for name, claim in best.items() if claim.is_sure]
    if len(sure) == 1:
        claim, others = claims[sure[0]], tuple(name for name in best if name != sure[0])
        return Chosen(_claimed(kind, sure[0], claim, option), tuple(sorted(claim.columns)), others)
    general = [name for name, claim in claims.items() if claim.is_general]
    if len(general) == 1:
        return Chosen(_claimed(kind, general[0], claims[general[0]], option), others=tuple(best))
    able = [name for name, _ in _readers(kind)]
    what = f"no installed {kind.noun} knows what this is" if not general else f"several read this: {', '.join(general)}"
    todo = f"name one, such as `{(general or able or ['NAME'])[0]}:PATH`; `dosimeter adapters` lists what is installed"
    raise PlanError(what, where=f"{option} {visible(text)}", todo=todo)


def _claims(kind: Kind, path: str) -> Mapping[str, Claim]:
    asked = ((name, adapter.claim(path)) for name, adapter in _readers(kind))
    return {name: claim for name, claim in asked if claim is not None}


def _readers(kind: Kind) -> Iterator[tuple[str, ReadsPaths]]:
    """Yield the adapters of a kind that know their files; one that cannot be imported knows none."""
    for name in registry.names(kind):
        try:
            adapter = registry.adapter(kind, name)
        except UnknownAdapterError:  # `dosimeter adapters` says why
            continue
        if isinstance(adapter, ReadsPaths):
            yield name, adapter


def _claimed(kind: Kind, name: str, claim: Claim, option: str) -> Use:
    return _use(kind, {"use": name, **claim.settings}, option)
