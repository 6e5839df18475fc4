"""Turns, clocks, and tasks that end."""
