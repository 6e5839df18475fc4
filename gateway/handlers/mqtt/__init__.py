"""One MQTT connection: what its client publishes, and which events its topic filters deliver."""
