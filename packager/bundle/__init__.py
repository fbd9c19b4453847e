"""The bundle: write, open, verify, golden vectors."""
