"""Limits as arithmetic, and the store that they share. Knows no call."""
