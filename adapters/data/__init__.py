"""Data sources that read the user's own files."""
