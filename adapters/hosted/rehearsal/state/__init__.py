"""What one mock server holds: its account, what it billed, its faults, and the file that it keeps it in."""
