"""Filled-in forms about kinds of devices: one TOML each, values only."""
