"""Formats that a model may come in: one file each, found by listing this folder."""
