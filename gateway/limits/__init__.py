"""Limits: their arithmetic, the store that processes share, and token leasing."""
