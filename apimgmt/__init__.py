"""The project: wiring only. Settings, addresses, processes."""
