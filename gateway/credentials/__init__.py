"""API keys, connect tickets and public keys as text."""
