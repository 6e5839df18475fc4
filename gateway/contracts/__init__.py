"""AsyncAPI and OpenAPI documents of what a key may use."""
