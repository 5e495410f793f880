"""`ID@COMMIT`: a repository of the hub at a full commit, as models and data sets are named."""

from __future__ import annotations

import re
from typing import ClassVar

from pydantic import Field, field_validator

from engine.ports import Settings

COMMIT = re.compile(r"[0-9a-f]{40}")


class AtCommit(Settings):
    """Which repository, at which commit."""

    argument: ClassVar[str] = "id"

    id: str = Field(min_length=1, description="The repository, such as `ORG/NAME`.")
    commit: str = Field(
        description="The full commit, 40 hexadecimal digits.", json_schema_extra={"pattern": f"^{COMMIT.pattern}$"}
    )

    @field_validator("commit")
    @classmethod
    def _is_whole(cls, commit: str) -> str:
        if not COMMIT.fullmatch(commit):
            raise ValueError(
                f"`{commit}` is no full commit: write its 40 hexadecimal digits, for a branch or a tag may move"
            )
        return commit

    @classmethod
    def of_argument(cls, argument: str) -> dict[str, object]:
        """Read `ID@COMMIT`."""
        identity, at, commit = argument.partition("@")
        if not at:
            raise ValueError(f"`hub:{argument}` is not pinned: write `hub:ID@COMMIT` with the full 40-digit commit")
        return {"id": identity, "commit": commit}

    def as_argument(self) -> str:
        """Return `ID@COMMIT`."""
        return f"{self.id}@{self.commit}"
