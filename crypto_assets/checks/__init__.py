"""Data quality gates: what must hold of stored rows, asked of DuckDB after a write."""
