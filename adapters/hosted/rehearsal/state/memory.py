"""What an account holds, on disk: a server writes it down when it ends, and the next one in that folder goes on from there.

It is one JSON file, written whole, beside the folder of weights. A folder may come from somebody else: all of it is looked
through before any of it counts, nothing in it is code, and nothing outside it is read, written or deleted.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.hosted.rehearsal.api import id_maker
from adapters.hosted.rehearsal.state.account import MockAccount
from adapters.hosted.rehearsal.state.records import Deployment, MockBatch, MockJob, StoredFile
from engine.domain.errors import StoreError

FORMAT: Final = "a dosimeter rehearsal server's memory, 1"
NAME, PART, LOCK = "memory.json", "memory.json.part", "lock"
LIVE = {"jobs": {"__all__": {"work", "may_go"}}, "batches": {"__all__": {"work"}}}
"""What of them only means something while the server runs."""

PATIENCE_SECONDS = 20.0
"""How long the server before may take to end."""


class Kept(BaseModel):
    """The file.

    Attributes:
        format: Marks it as ours.
        dialect: Which API it implements: a job of one is no job of another.
        life: How many servers this folder has had before; ids are drawn from it, so that none is given twice.
        pico_dollars: Money billed.
        tokens_billed: By model, and kind.
        tuned: Each tuned model's weights, as a path below the folder of weights.
        files, jobs, batches, deployments: Oldest first.
    """

    model_config = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, ser_json_bytes="base64", val_json_bytes="base64"
    )

    format: Literal["a dosimeter rehearsal server's memory, 1"]
    dialect: str
    life: int = Field(ge=0)
    pico_dollars: int = Field(ge=0)
    tokens_billed: dict[str, dict[str, int]]
    tuned: dict[str, str]
    files: list[StoredFile]
    jobs: list[MockJob]
    batches: list[MockBatch]
    deployments: list[Deployment]


def recall(account: MockAccount) -> None:
    """Give an account what the last server in its folder held, where it has a folder; it is the account's alone from now on.

    Raises:
        StoreError: The folder holds something else, is damaged, or another server's now. The account has nothing of it then.
    """
    folder = account.settings.folder
    if folder is None:
        return
    _refuse_strange(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    account.lock = _locked(folder)
    try:
        if (folder / NAME).is_file():
            _take(account, _read(folder, account))
        keep(account)  # at once: should this server not end in order, its ids are still not given again
    except BaseException:
        account.lock.release()
        raise


def keep(account: MockAccount) -> None:
    """Write down what an account holds, where it has a folder."""
    folder = account.settings.folder
    if folder is None:
        return
    kept = Kept.model_construct(
        format=FORMAT,
        dialect=account.settings.dialect,
        life=account.life,
        pico_dollars=account.audit.pico_dollars,
        tokens_billed=account.audit.tokens_billed,
        tuned={name: Path(place).relative_to(account.weights).as_posix() for name, place in account.tuned.items()},
        files=list(account.files.values()),
        jobs=list(account.jobs.values()),
        batches=list(account.batches.values()),
        deployments=list(account.deployments.values()),
    )
    part = folder / PART
    part.touch(mode=0o600)  # uploads and answers: the owner's eyes only
    part.write_text(kept.model_dump_json(exclude=LIVE), encoding="utf-8")
    part.replace(folder / NAME)


def _refuse_strange(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise _unusable("it is a file", folder)
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if NAME not in names and (strange := sorted(names - {PART, LOCK})):
        raise _unusable(f"it holds something ({strange[0]}) and no {NAME}", folder)


def _locked(folder: Path) -> FileLock:
    lock = FileLock(folder / LOCK, timeout=PATIENCE_SECONDS, thread_local=False)  # which thread ends it is open
    try:
        lock.acquire()
    except Timeout as error:
        raise _unusable("another server keeps what it has there now", folder) from error
    return lock


def _read(folder: Path, account: MockAccount) -> Kept:
    path = folder / NAME
    try:
        kept = Kept.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _unusable(f"{'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg']}", path) from error
    except OSError as error:
        raise _unusable(str(error), path) from error
    if kept.dialect != account.settings.dialect:
        raise _unusable(f"it is of a server of the dialect {kept.dialect}, not {account.settings.dialect}", path)
    root = account.weights.resolve()
    if account.weights.is_symlink():
        raise _unusable("its weights are elsewhere", account.weights)
    for name, place in kept.tuned.items():
        found = (account.weights / place).resolve()
        if not found.is_dir() or root not in found.parents:
            raise _unusable(f"the weights of {name} are not there", account.weights / place)
    return kept


def _take(account: MockAccount, kept: Kept) -> None:
    """Fill the account, and sweep away the weights of jobs that begin again."""
    account.life = kept.life + 1
    account.new_id = id_maker(account.settings.seed, account.life)
    account.audit.recall(kept.tokens_billed, kept.pico_dollars)
    account.tuned.update({name: str(account.weights / place) for name, place in kept.tuned.items()})
    account.files.update({file.file_id: file for file in kept.files})
    account.jobs.update({job.job_id: job for job in kept.jobs})
    account.batches.update({batch.batch_id: batch for batch in kept.batches})
    account.deployments.update({deployment.name: deployment for deployment in kept.deployments})
    used = {Path(place).parts[0] for place in kept.tuned.values()}
    for path in account.weights.iterdir() if account.weights.is_dir() else ():
        if path.name not in used and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)


def _unusable(why: str, where: Path) -> StoreError:
    what = f"a rehearsal server cannot go on from here: {why}"
    return StoreError(what, where=str(where), todo="name another folder, or remove this one to begin anew")
