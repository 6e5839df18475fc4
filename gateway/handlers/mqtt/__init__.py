"""What one MQTT connection publishes and is sent."""
