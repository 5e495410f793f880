"""An account's worker of an earlier run, which lives until its input ends: run directory, account as JSON."""

from __future__ import annotations

import sys
from pathlib import Path

from engine.domain.sweep import Account
from engine.run.accounts.worker import AccountWorker
from engine.store.layout import RunDirectory

if __name__ == "__main__":
    worker = AccountWorker("ours", Account.model_validate_json(sys.argv[2]), RunDirectory(Path(sys.argv[1])))
    sys.stdout.write("connected\n")
    sys.stdout.flush()
    sys.stdin.read()
