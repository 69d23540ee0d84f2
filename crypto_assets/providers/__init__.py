"""HTTP clients for public crypto APIs: requests in, tidy frames out; no Dagster, no DuckDB."""
