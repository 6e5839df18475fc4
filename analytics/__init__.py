"""Usage in, dashboards out."""
