"""Judges that need no model."""
