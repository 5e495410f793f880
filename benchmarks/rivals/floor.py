"""The arithmetic of a grid whose work is done once, a row at a time.

Training is counted once a trajectory, that is for the longest of the cells that differ in epochs only, with 4 FLOP for each
weight and token: 2 forward, 2 to carry the gradient back through a frozen weight. Generation is counted for each cell,
with 2 FLOP for each weight and token read or made. The weights are those of the linear layers; the output layer counts
only where its result is used, on answer tokens in training and on new tokens in generation. Attention, the adapters'
own weights, normalisation, sampling and grading are left out, which makes the floor lower and the ratio to it larger; what
rows have in common at their beginnings is counted in each row, although it can be computed once.
"""

from __future__ import annotations

from dataclasses import dataclass

TRAIN_FLOP, GENERATE_FLOP = 4, 2


@dataclass(frozen=True, slots=True)
class Floor:
    """What the floor is computed from.

    Attributes:
        flop_per_second: Of one thread, on float32 products of 1024 rows with a hidden x MLP matrix; the best of many.
        body: Weights of the linear layers, output layer left out.
        head: Weights of the output layer.
        train_tokens: Tokens of all distinct trajectories, every epoch counted.
        train_answers: Of these, tokens that the loss is on.
        trajectories: Number of distinct trajectories.
    """

    flop_per_second: float
    body: int
    head: int
    train_tokens: int
    train_answers: int
    trajectories: int

    def train_flop(self) -> float:
        """FLOP of all distinct training."""
        return TRAIN_FLOP * (self.body * self.train_tokens + self.head * self.train_answers)

    def generate_flop(self, prompt_tokens: int, generated_tokens: int, answers: int) -> float:
        """FLOP of all generation.

        Args:
            prompt_tokens: Tokens of all prompts.
            generated_tokens: Tokens of all answers; the last one of each is never read back.
            answers: Number of answers.
        """
        read = prompt_tokens + generated_tokens - answers
        return GENERATE_FLOP * (self.body * read + self.head * generated_tokens)

    def seconds(self, flop: float, cores: int) -> float:
        """Seconds in which `cores` cores do `flop` operations at the measured rate."""
        return flop / (cores * self.flop_per_second)
