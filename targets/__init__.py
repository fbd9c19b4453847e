"""Deployment runtimes and their rules: one file each, found by listing this folder."""
