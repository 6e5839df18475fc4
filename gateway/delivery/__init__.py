"""Webhooks on their way out."""
