"""`dosimeter serve-standin`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from adapters.hosted.rehearsal.backend.parts import Backend
    from adapters.hosted.rehearsal.settings import ServerSettings
    from engine.spec.positions import Positions, Problems
    from engine.spec.yaml_nodes import Entry, Mapping

PORT = 8377
JUDGED = ("standin/policy:100", "standin/overrefusal:100")
"""The benchmarks whose requests `standin-judge` can grade; smaller ones are contained in these."""


@click.command("serve-standin")
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 for a free one.")
@click.option("--settings", "path", type=click.Path(path_type=Path), help="YAML file of settings.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, such as quota.policy=sliding."
)
@click.option("--until-eof", is_flag=True, help="End when the standard input ends: with whoever started it.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Write the base URL there once it takes requests.")
def command(
    *, port: int, path: Path | None, overrides: tuple[str, ...], ready_file: Path | None, until_eof: bool
) -> None:
    """Serve the stand-in as a hosted provider would, on this machine alone.

    It really fine-tunes and really answers, holds quotas, and makes what is asked of it go wrong. Ctrl-C ends it.

    \b
    Examples:
      dosimeter serve-standin
      dosimeter serve-standin --set quota.limits.standin-echo.rpm=300 --set time_scale=600
    """
    from adapters.hosted.rehearsal.server import base_url, listen, serve

    settings = read_settings(path, overrides)
    try:
        bound = listen(port)
    except OSError as error:
        raise click.UsageError(f"port {port}: {error.strerror}; --port 0 finds a free one") from error
    url = base_url(bound, settings)

    def ready() -> None:
        click.echo(f"{url}\nany key that begins with sk-test- works; Ctrl-C ends it")
        if ready_file is not None:
            temporary = ready_file.with_name(f"{ready_file.name}.part")
            temporary.write_text(f"{url}\n", encoding="utf-8")
            temporary.replace(ready_file)

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if until_eof:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        serve(bound, settings, backend(), ready)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)


def _end_with_stdin() -> None:
    while os.read(sys.stdin.fileno(), 1024):  # no buffer, whose lock the interpreter would want when it ends before
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def backend() -> Backend:
    """Return the parts that stand behind the wire."""
    from adapters.hosted.rehearsal.backend.parts import Backend
    from engine import registry
    from engine.domain.adapters import Kind
    from engine.run.executors.workers import WarmSlots

    judged = [registry.INSTALLED.use(Kind.BENCHMARK, reference) for reference in JUDGED]
    asked = [registry.adapter(Kind.BENCHMARK, use.name).prompts(use.settings) for use in judged]
    return Backend(
        tuner=registry.adapter(Kind.TUNER, "local/sft"),
        tuner_settings=registry.settings_of(Kind.TUNER, "local/sft"),
        generator=registry.adapter(Kind.GENERATOR, "local/transformers"),
        generator_settings=registry.settings_of(Kind.GENERATOR, "local/transformers")(),
        judge=registry.adapter(Kind.JUDGE, "standin/rules"),
        judge_settings=registry.settings_of(Kind.JUDGE, "standin/rules")(),
        source=registry.adapter(Kind.MODEL, "standin/aligned"),
        source_settings=registry.settings_of(Kind.MODEL, "standin/aligned")(),
        prompts={prompt.text: prompt for prompts in asked for prompt in prompts},
        warm=WarmSlots,
    )


def read_settings(path: Path | None, overrides: Sequence[str] = ()) -> ServerSettings:
    """Return the settings of a file and of `KEY=VALUE` overrides, of which a later one wins.

    Raises:
        SpecError: Something is wrong with them.
    """
    from pydantic import ValidationError

    from adapters.hosted.rehearsal.settings import ServerSettings
    from engine.spec.messages import findings
    from engine.spec.positions import Problems

    problems = Problems()
    root, positions = _tree(path, overrides, problems)
    problems.stop_if_any()
    try:
        return ServerSettings.model_validate(root.plain)
    except ValidationError as error:
        for finding in findings(error, "", ServerSettings):
            mark = positions.mark(finding.path, key=finding.at_key)
            problems.add(mark.problem(finding.path, finding.what, code=finding.code, hint=finding.hint))
        problems.stop_if_any()
        raise


def _tree(path: Path | None, overrides: Sequence[str], problems: Problems) -> tuple[Mapping, Positions]:
    """Return the YAML of both, and where each part of it was written."""
    from engine.spec import yaml_nodes
    from engine.spec.positions import SET, Mark, Positions, Source, visible
    from engine.spec.yaml_nodes import Mapping

    name, text = (visible(str(path)), path.read_text(encoding="utf-8")) if path is not None else (SET, "{}")
    source = Source.of(name, text)
    start = Mark(source, 1, 1)
    found = yaml_nodes.compose(source, text, problems)
    if found is not None and not isinstance(found, Mapping):
        problems.add(start.problem("", "expected a mapping of settings", code="wrong_type"))
    root = found if isinstance(found, Mapping) else Mapping((), start)
    for number, written in enumerate(overrides, start=1):
        root = _overridden(root, written, number, problems)
    values, keys = {}, {}
    for place, key, value in yaml_nodes.walk(root):
        values[place] = value
        if key is not None:
            keys[place] = key
    return root, Positions(start, values, keys)


def _overridden(root: Mapping, written: str, number: int, problems: Problems) -> Mapping:
    from engine.spec import yaml_nodes
    from engine.spec.positions import SET, Mark, Source
    from engine.spec.yaml_nodes import Entry, Scalar

    source = Source.of(SET, written, number)
    mark = Mark(source, number, 1)
    key, equals, value = written.partition("=")
    if not equals:
        problems.add(mark.problem("", "expected KEY=VALUE", code="bad_override", hint="such as time_scale=600"))
        return root
    node = yaml_nodes.compose(source, " " * (len(key) + 1) + value, problems, key.strip())
    return _put(root, key.strip().split("."), Entry(key.strip(), mark, node or Scalar(None, mark)))


def _put(mapping: Mapping, keys: Sequence[str], new: Entry) -> Mapping:
    """Return `mapping` with the new value at a dotted path, made where it is not there."""
    from dataclasses import replace

    from engine.spec.yaml_nodes import Entry, Mapping

    head, rest = keys[0], keys[1:]
    entry = mapping.get(head)
    value = new.value
    if rest:
        inner = entry.value if entry is not None and isinstance(entry.value, Mapping) else Mapping((), new.mark)
        value = _put(inner, rest, new)
    others = tuple(one for one in mapping.entries if one.key != head)
    return replace(mapping, entries=(*others, Entry(head, new.mark, value)))
