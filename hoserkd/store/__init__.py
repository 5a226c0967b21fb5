"""The run store: an append-only spool a run, ingested exactly once into DuckDB."""
