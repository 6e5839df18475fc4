"""Operators' accounts: their rights, sign-in and sessions, second factor, and tokens of the management API."""
