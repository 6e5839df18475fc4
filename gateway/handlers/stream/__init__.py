"""The connection behind ``/v1/stream``."""
