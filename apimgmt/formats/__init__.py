"""Formats of dates and numbers in pages."""
