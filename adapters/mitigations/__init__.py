"""Mitigations: one class each, with its paper, its equation, its settings and where it deviates."""
