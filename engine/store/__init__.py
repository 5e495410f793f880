"""What lasts: SQLite control plane, Parquet shards, artifacts, and the published DuckDB file."""
