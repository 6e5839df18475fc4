"""A database backend for SQLite whose writers wait fairly (see ``base``)."""
