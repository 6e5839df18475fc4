"""Calls that go to an upstream."""
