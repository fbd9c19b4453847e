"""Devices for those who have no board: aarch64 Debian machines under qemu, built, started, stopped and removed here."""
