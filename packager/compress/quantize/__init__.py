"""Quantisation, one file per library and scheme."""
