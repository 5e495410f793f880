"""YAML to Sweep, and Sweep to Cells."""
