"""apply, export and import."""
