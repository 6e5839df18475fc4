"""Bytes and values: no I/O, no clock."""
