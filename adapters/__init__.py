"""Adapters: one folder a family; each sees only engine.ports and engine.domain, never another."""
