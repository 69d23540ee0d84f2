"""Pure functions from DataFrame to DataFrame. No Dagster, no DuckDB, no network, no clock."""
