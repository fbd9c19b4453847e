"""Real models and real data for the benchmarks, out of packages."""
