"""The configuration as documents: applied and exported as YAML, and imported from documents of other tools."""
