"""Channels as the control plane knows them, and the events that could not be accepted."""
