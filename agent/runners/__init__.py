"""Runtimes on the device: one file each, found by listing this folder."""
