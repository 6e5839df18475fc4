"""Formats for English, independent of a country."""
