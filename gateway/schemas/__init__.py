"""Schemas of events: Avro and JSON Schema, parsed and checked within bounds."""
