"""The shape of the code: what the import contracts of ``pyproject.toml`` cannot express, checked on the source."""
