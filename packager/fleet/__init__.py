"""Many devices at once: which, how many at a time, how often tried, in which stages."""
