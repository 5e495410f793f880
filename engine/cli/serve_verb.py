"""`dosimeter serve-standin`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import click

from engine import registry
from engine.domain.adapters import Kind
from engine.ports.mock_server import MockServer, Tools
from engine.run.drive.rehearsal import merged, mock_server
from engine.run.executors.workers import WarmSlots
from engine.spec.written import read_written

PORT = 8377


@click.command("serve-standin")
@click.option("--provider", help="Serve as this provider would [default: the only server there is, with its defaults].")
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 for a free one.")
@click.option("--settings", "path", type=click.Path(path_type=Path), help="YAML file of settings.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, such as seed=1.")
@click.option("--until-eof", is_flag=True, help="End when the standard input ends: with whoever started it.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Write the base URL there once it takes requests.")
def command(
    *,
    provider: str | None,
    port: int,
    path: Path | None,
    overrides: tuple[str, ...],
    ready_file: Path | None,
    until_eof: bool,
) -> None:
    """Serve the stand-in as a hosted provider would, on this machine alone.

    It really fine-tunes and really answers, holds quotas, and makes what is asked of it go wrong. Ctrl-C ends it. Its
    settings are in the guide "The rehearsal server".

    \b
    Examples:
      dosimeter serve-standin
      dosimeter serve-standin --settings server.yaml --set seed=1
    """
    server = chosen(provider)
    own, _ = read_written(server.settings, path.read_bytes() if path else b"", str(path or "--set"), overrides)
    settings = server.settings.model_validate(merged(server.defaults, own.model_dump(mode="json", exclude_unset=True)))

    def ready(url: str) -> None:
        click.echo(f"{url}\na key that it takes: {server.key}\nCtrl-C ends it")
        if ready_file is not None:
            temporary = ready_file.with_name(f"{ready_file.name}.part")
            temporary.write_text(f"{url}\n", encoding="utf-8")
            temporary.replace(ready_file)

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if until_eof:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        server.serve(settings, port, tools(), ready)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
    except OSError as error:
        raise click.UsageError(f"port {port}: {error.strerror}; --port 0 finds a free one") from error


def chosen(provider: str | None) -> MockServer:
    """Return a provider's mock server; without a name, the only one that there is.

    Raises:
        UsageError: There are several, or none.
    """
    if provider is not None:
        return mock_server(provider)
    found = {name: registry.adapter(Kind.PROVIDER, name).rehearsal() for name in registry.names(Kind.PROVIDER)}
    servers = {name: server for name, server in found.items() if server is not None}
    if len({type(server) for server in servers.values()}) != 1:
        raise click.UsageError(f"name one with --provider: {', '.join(servers) or 'none is installed'}")
    return min(servers.values(), key=lambda server: len(server.defaults))


def tools() -> Tools:
    """Return what the engine lends to mock servers."""
    return Tools(lambda kind, name: registry.adapter(Kind(kind), name), WarmSlots)


def _end_with_stdin() -> None:
    while os.read(sys.stdin.fileno(), 1024):  # no buffer, whose lock the interpreter would want when it ends before
        pass
    os.kill(os.getpid(), signal.SIGTERM)
