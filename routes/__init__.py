"""Routes: what can be called, what handles it, and its policies."""
