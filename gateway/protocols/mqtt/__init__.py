"""MQTT 3.1.1 and 5.0: codec, session and server, in that order of dependence."""
