"""Judges: by rules, and by rubrics that a hosted model is asked with."""
