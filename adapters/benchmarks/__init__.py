"""Benchmarks that read the user's own files."""
