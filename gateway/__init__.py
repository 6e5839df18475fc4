"""The data plane: accepts, authenticates, limits, handles and meters every call. It reads no table."""
