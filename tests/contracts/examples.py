"""Examples of the adapters of a package of yours, for the contract suites.

The environment variable `DOSIMETER_EXAMPLES` names a YAML file that lists, by kind, adapters as a spec would have them:
`{judges: [{use: acme/classifier, folder: models/classifier}]}`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from engine import registry
from engine.domain.adapters import Kind, SettingsError, Use, plain


def examples(kind: Kind) -> dict[str, Mapping[str, object]]:
    """Return the settings of the examples of one kind, by the adapter's name."""
    file = os.environ.get("DOSIMETER_EXAMPLES")
    written = yaml.safe_load(Path(file).read_text(encoding="utf-8")) if file else {}
    uses = [plain(registry.INSTALLED.use(kind, example)) for example in written.get(kind.value, ())]
    return {str(use.pop("use")): use for use in uses}


def used(kind: Kind, written: object) -> Use:
    """Return an adapter as it is written; one whose settings are missing fails, and says how to give them."""
    try:
        return registry.INSTALLED.use(kind, written)
    except SettingsError as error:
        if all(fault["type"] != "missing" for fault in error.error.errors()):
            raise
        pytest.fail(
            f"{error}\ngive an example of `{error.name}` in the file that DOSIMETER_EXAMPLES names", pytrace=False
        )
