"""A process that is killed while it writes a record: FOLDER, the call of `Path` in which it dies, key, account, provider."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from engine.run.accounts.journal import JobRecord, Journal


def main() -> None:
    folder, call, key, account, provider = sys.argv[1:]
    real = getattr(Path, call)

    def fatal(path: Path, *_: object, **__: object) -> None:
        if call == "write_text":
            real(path, '{"key": "tun')
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(Path, call, fatal)
    Journal(Path(folder)).write(JobRecord(key, account, provider, 0.0, "ftjob-1"))


if __name__ == "__main__":
    main()
