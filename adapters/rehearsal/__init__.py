"""A server of ours that speaks the wire of a hosted provider, for rehearsals and tests."""
