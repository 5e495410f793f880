"""Cells to a deduplicated graph of keyed stages, and what it will cost."""
