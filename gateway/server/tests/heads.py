"""Heads of requests to the route of the tests."""

HOST = "host: gateway.test\r\n"
GET = f"GET /echo HTTP/1.1\r\n{HOST}"
POST = f"POST /echo HTTP/1.1\r\n{HOST}"
CHUNKED = POST + "transfer-encoding: chunked\r\n\r\n"
