"""The words of the project: standard library and pydantic only; no I/O, no clock, no randomness."""
