"""A module that does not get through its own import."""

raise RuntimeError("no device here")
