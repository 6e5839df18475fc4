"""Whether one version of a schema can stand in for another: pure rules, bounded in steps."""
