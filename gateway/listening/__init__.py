"""Listening: accepts TCP connections within ceilings, keeps memory within its budget, and reads PROXY headers."""
