"""Which function runs which kind of stage."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from engine.domain.stage import StageKind
from engine.run.stages import answers, judging, models, rows
from engine.run.stages.batch import Runner, each

RUNNERS: Mapping[StageKind, Runner] = MappingProxyType(
    {
        StageKind.SAMPLE: each(rows.sample),
        StageKind.ROWS: each(rows.change),
        StageKind.TUNE: models.tune,
        StageKind.WEIGHTS: each(models.edit),
        StageKind.GENERATE: answers.generate,
        StageKind.SCREEN: each(answers.screen),
        StageKind.JUDGE: judging.judge,
    }
)
