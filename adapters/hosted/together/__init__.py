"""`hosted/together`: Together AI."""
