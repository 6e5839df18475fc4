"""Consumers of the API, and the tiers that bound what they may do."""
