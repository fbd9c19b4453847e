"""The on-device agent: Python 3.8 or newer, standard library only at import time."""
