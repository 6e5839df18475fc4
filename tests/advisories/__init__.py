"""The audit of our requirements against published advisories."""
