"""What `benchmarks/quota.py` measures: ways to make the same calls, and what they run against."""
