"""A package of a third party, as far as a spec can tell: adapters that declare settings, and do nothing."""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from engine import ports
from engine.domain.adapters import JudgeUse, ModelUse


class Idle:
    """Has every method that anybody asks for, and does nothing."""

    revision = 1

    def __getattr__(self, name: str) -> object:
        if not name.islower() or name.startswith("_"):
            raise AttributeError(name)
        return lambda *_: None


class Model(Idle):
    """`toy/model:PATH`."""

    revision = 1

    class Settings(ports.Settings):
        argument: ClassVar[str] = "path"

        path: Annotated[str, ports.OUTSIDE] = Field(description="Its folder.")
        layers: int = Field(default=2, ge=1, description="Layers.")


class Rows(Idle):
    """`toy/rows:COLUMN`."""

    revision = 1

    class Settings(ports.Settings):
        argument: ClassVar[str] = "column"

        column: str = Field(default="text", description="The column with the text.")


class Prompts(Idle):
    """`toy/prompts`."""

    revision = 1

    class Settings(ports.Settings):
        n: int | None = Field(default=None, ge=1, description="Number of prompts; all when omitted.")
        column: Literal["text", "title"] = Field(default="text", description="The column with the prompt.")


class Steady(Idle):
    """`toy/steady`: needs a learning rate."""

    revision = 1

    class Settings(ports.Settings):
        lr: float = Field(
            gt=0, lt=1, description="Learning rate.", json_schema_extra={"also": ["learning_rate", "step_size"]}
        )
        rank: int = Field(default=8, ge=1, le=64, description="Rank.")
        method: Literal["lora", "full"] = Field(default="lora", description="What is trained.")
        targets: Annotated[tuple[str, ...], Field(strict=False)] = Field(default=("all",), description="Modules.")

        @model_validator(mode="after")
        def _full_has_no_rank(self) -> Steady.Settings:
            if self.method == "full" and "rank" in self.model_fields_set:
                message = "`rank` belongs to `lora`"
                raise ValueError(message)
            return self


class Other(Idle):
    """`toy/other`: has other settings, and smaller ranks."""

    revision = 1

    class Settings(ports.Settings):
        rank: int = Field(default=4, ge=1, le=16, description="Rank.")
        lr_multiplier: float | None = Field(default=None, gt=0, description="Times the usual learning rate.")
        beta: float = Field(default=0.1, gt=0, description="Strength.")


class Generator(Idle):
    """`toy/generator`."""

    revision = 1

    class Settings(ports.Settings):
        dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Type of the weights.")


class Quoting(Idle):
    """`toy/quoting`: fails over every response, and quotes it."""

    def judge(self, response: str) -> None:
        try:
            json.loads(response)
        except ValueError as error:
            raise KeyError(response) from error


class Strict(Idle):
    """`toy/strict`: takes nothing."""

    revision = 1


class Thresholded(Idle):
    """`toy/v1.0-beta:MODEL`."""

    revision = 1

    class Settings(ports.Settings):
        argument: ClassVar[str] = "model"

        model: ModelUse | None = Field(default=None, description="The model that it asks.")
        threshold: float = Field(default=0.5, ge=0, le=1, description="From where on it counts.")


class Scale(Idle):
    """`toy/scale`."""

    revision = 1

    class Settings(ports.Settings):
        argument: ClassVar[str] = "a"

        a: float = Field(ge=0, le=1, strict=False, description="How much of the change is kept.")


class Guarded(Idle):
    """`toy/guarded`."""

    revision = 1

    class Settings(ports.Settings):
        guard: JudgeUse = Field(description="The judge that guards.")
        words: Annotated[tuple[str, ...], Field(strict=False)] = Field(default=(), description="Words.")
