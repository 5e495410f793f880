"""Analysis only reads: SQL, statistics, charts, the report."""
