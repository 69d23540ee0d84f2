"""The nine tables as assets: thin glue from provider to calculation to table."""
