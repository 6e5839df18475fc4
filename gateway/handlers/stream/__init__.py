"""The WebSocket of ``/v1/stream``: one connection that publishes to and reads from many channels."""
