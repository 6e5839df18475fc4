"""MQTT 3.1.1 and 5.0: packets, their encoding, and the state of a session."""
