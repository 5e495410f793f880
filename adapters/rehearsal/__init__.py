"""A local mock server that implements the API of a hosted provider, for rehearsals and tests."""
