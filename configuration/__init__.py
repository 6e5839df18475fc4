"""The configuration as documents: one YAML file in and out, and documents of other tools brought in."""
