"""Mitigations: pure rewrites of a recipe."""
