"""What a key may use, written as documents that other programs read: AsyncAPI and OpenAPI."""
