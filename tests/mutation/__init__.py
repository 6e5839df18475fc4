"""Mutation testing of the pure cores: small wrong changes, one at a time, that the unit tests must notice."""
