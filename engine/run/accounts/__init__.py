"""An account at a provider, on the host that owns it: its quota, its jobs, and what was paid for once."""
