"""Readings of the board: one file per kind."""
