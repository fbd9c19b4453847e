"""The agent's version: the project's, written here because the agent ships alone."""

__version__ = "0.1.0"
