"""The client's side of HTTP and WebSocket, towards upstreams."""
