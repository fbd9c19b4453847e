"""Devices: inventory, transports, push, the session with the agent."""
