"""The commands `rebuild` and `changes`."""
