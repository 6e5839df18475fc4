"""Importers of other tools' documents: they convert a parsed document to objects, without access to the database."""
