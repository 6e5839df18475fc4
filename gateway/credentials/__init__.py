"""API keys and public keys as text."""
