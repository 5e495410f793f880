"""Cells to a deduplicated graph of keyed stages, and what it will cost.

Everywhere here, accounts, forecasts and stages are by stage key, and `cached` has the keys of the stages that need not run.
"""
