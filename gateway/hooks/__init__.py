"""Operators' functions."""
