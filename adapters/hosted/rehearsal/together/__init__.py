"""The endpoints in which Together differs."""
