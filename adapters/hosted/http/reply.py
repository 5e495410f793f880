"""What all models of replies have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Reply(BaseModel):
    """What is read of a reply: a server may say more, and leave out what has a default."""

    model_config = ConfigDict(frozen=True, extra="ignore")
