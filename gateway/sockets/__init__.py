"""WebSocket connections over TCP, of callers and of upstreams."""
