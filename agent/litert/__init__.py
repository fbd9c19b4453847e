"""LiteRT's own profiler: called through its C library, and its operators tied to those of the model."""
