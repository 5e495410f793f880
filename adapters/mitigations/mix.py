"""`mix:SOURCE@N`: append N rows of a safety source to the sample (safety-data mixing).

- Paper: Bianchi et al. 2023 (arXiv 2309.07875); Qi et al. 2023 (arXiv 2310.03693), section 5.
- Equation: D' = D + S, where S is N rows of the source, drawn by the sample's seed.
- Settings: `source`, `n`; n = 0 changes nothing.
- Deviations: none. The rows are appended, and the fine-tuner shuffles them with the others. More rows mean more optimizer steps
  per epoch, as in the papers: compare cells by `optimizer_steps` as well as by `epochs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from adapters.mitigations.sample import SampleSettings
from engine.domain.conversation import ChatRow
from engine.domain.sweep import Recipe
from engine.ports import Change, ChangeRows

SAMPLE = "mix"


class Mix:
    """Safety-data mixing: `mix:standin/refusals@10`."""

    revision = 2
    Settings = SampleSettings
    neutral: Mapping[str, object] = MappingProxyType({"n": 0})

    def change(self, settings: SampleSettings, recipe: Recipe, system: str | None) -> Change:
        """Insert a `rows` stage with the further sample `mix`.

        Raises:
            ValueError: The recipe is not tuned.
        """
        del system
        sample = settings.drawn(recipe) if settings.n else None
        return Change() if sample is None else Change(rows=(ChangeRows({SAMPLE: sample}),))

    def change_rows(
        self, settings: SampleSettings, rows: Sequence[ChatRow], further: Mapping[str, Sequence[ChatRow]], seed: int
    ) -> Sequence[ChatRow]:
        """Append the further sample."""
        del settings, seed
        return [*rows, *further[SAMPLE]]
