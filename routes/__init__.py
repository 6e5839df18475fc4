"""What may be called: routes and their policies."""
