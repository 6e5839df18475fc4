"""How consumers prove themselves: API keys, issued, rotated and revoked."""
