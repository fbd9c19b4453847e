"""Reports kept on the host: store, statistics, tables."""
