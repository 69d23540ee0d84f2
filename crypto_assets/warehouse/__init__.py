"""The DuckDB file: schema, transactional writes, reading, publishing and the I/O manager."""
