"""The front door: verbs, exit codes, and every line a person reads."""
