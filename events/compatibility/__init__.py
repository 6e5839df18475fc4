"""Whether one version of a schema can replace another: pure rules, bounded in steps."""
