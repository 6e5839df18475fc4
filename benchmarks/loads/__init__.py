"""The clients that load a server, each in a process of its own on the load's core."""
