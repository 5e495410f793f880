"""A local mock server that implements the APIs of hosted providers, for rehearsals and tests."""
