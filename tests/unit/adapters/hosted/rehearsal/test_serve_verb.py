"""`dosimeter serve-standin`: its settings, and its life from the ready file to Ctrl-C."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from openai import OpenAI

from adapters.hosted.rehearsal.settings import Durations, Fault, FaultKind, Limits, QuotaSettings, ServerSettings
from engine.domain.errors import SpecError
from engine.spec.written import read_written

WRITTEN = """\
time_scale: 600
quota:
  policy: sliding
  limits:
    standin-echo: {rpm: 300, tpm: 40000}
faults:
  - {kind: throttled, on: /v1/chat, probability: 0.5}
"""


def read_settings(path: Path | None, overrides: Sequence[str] = ()) -> ServerSettings:
    raw, name = (b"", "--set") if path is None else (path.read_bytes(), str(path))
    return read_written(ServerSettings, raw, name, overrides)[0]


def test_settings_are_read_and_overridden(tmp_path: Path) -> None:
    path = tmp_path / "server.yaml"
    path.write_text(WRITTEN)
    found = read_settings(path, ["time_scale=60", "quota.limits.standin-echo.rpm=5", "latency=[0.1, 0.2]"])
    assert found.time_scale == 60
    assert found.quota.policy == "sliding"
    assert found.quota.of("standin-echo").rpm == 5
    assert found.quota.of("standin-echo").tpm == 40_000
    assert found.latency == (0.1, 0.2)
    assert found.faults[0].probability == 0.5
    assert read_settings(None).faults == ()


@pytest.mark.parametrize(
    ("text", "overrides", "where"),
    [
        ("time_scale: fast\n", [], "server.yaml:1:13: time_scale"),
        ("seed: 1\nquota:\n  police: sliding\n", [], "server.yaml:3:3: quota.police"),
        ("seed: 1\nquota:\n  limits:\n    a: {rpm: 0}\n", [], "server.yaml:4:14: quota.limits.a.rpm"),
        ("faults:\n  - kind: error\n  - {kind: reset, at: chat}\n", [], "server.yaml:3:19: faults[1].at"),
        ("seed: 1\n", ["time_scale"], "--set:1:1"),
        ("seed: 1\n", ["seed=2", "time_scale=-1"], "--set:2"),
        ("[]\n", [], "server.yaml:1:1"),
        ("latency: [2, 1]\n", [], "0 <= low <= high"),
    ],
)
def test_what_is_wrong_with_them_has_a_place(tmp_path: Path, text: str, overrides: list[str], where: str) -> None:
    path = tmp_path / "server.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        read_settings(path, overrides)
    assert where in str(caught.value)


def test_the_guides_settings_are_settings_and_it_names_them_all(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[5] / "docs" / "guides" / "rehearsal-server.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```yaml\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    assert examples
    for number, example in enumerate(examples):
        path = tmp_path / f"{number}.yaml"
        path.write_text(example)
        read_settings(path)
    models = (ServerSettings, QuotaSettings, Limits, Fault, Durations)
    names = {name for model in models for name in model.model_fields} | {kind.value for kind in FaultKind}
    assert not [name for name in sorted(names) if f"`{name}`" not in guide]


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop(tmp_path: Path, end: signal.Signals) -> None:
    ready = tmp_path / "ready"
    command = [sys.executable, "-c", "from engine.cli.main import main; main()", "serve-standin", "--port", "0"]
    with subprocess.Popen(
        [*command, "--ready-file", str(ready)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as server:
        until = time.monotonic() + 60
        while not ready.exists() and time.monotonic() < until:
            time.sleep(0.05)
        url = ready.read_text().strip()
        with OpenAI(base_url=url, api_key="sk-test-1", max_retries=0) as client:
            assert {model.id for model in client.models.list()} >= {"standin-aligned", "standin-echo", "standin-judge"}
        server.send_signal(end)
        out, errors = server.communicate(timeout=30)
    assert server.returncode == 0
    assert url in out.decode()
    assert "Traceback" not in errors.decode()
