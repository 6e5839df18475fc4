"""Connectors: other brokers as sources and sinks of channels, one file a broker. They know nothing of channels."""
