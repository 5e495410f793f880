"""Another program that holds a DuckDB file open for writing until its standard input ends: `python holder.py FILE`."""

from __future__ import annotations

import sys

import duckdb

if __name__ == "__main__":
    with duckdb.connect(sys.argv[1]):
        print("held", flush=True)  # noqa: T201 - tells the test
        sys.stdin.read()
