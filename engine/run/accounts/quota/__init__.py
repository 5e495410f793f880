"""One account's quota: who may send what, and when."""
