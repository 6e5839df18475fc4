"""Durable subscriptions."""
