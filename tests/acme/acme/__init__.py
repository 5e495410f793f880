"""A third party's package, installed for single tests: small adapters that need no library, so that whole chains run at once.

The registry keeps one object per adapter. A test that wants an adapter to fail tells it to, on that object.
"""
