"""Events in and out of channels, on a caller's right."""
