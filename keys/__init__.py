"""Credentials of consumers: API keys and issuers of JWTs."""
