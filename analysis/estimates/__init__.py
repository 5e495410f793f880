"""Every formula of an estimate, an interval or a test: pure, on arrays, and nowhere else."""
