"""An account at a provider, in the worker that owns it: its quota, its jobs, and what was paid for once."""
