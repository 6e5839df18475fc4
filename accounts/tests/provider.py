"""A small OpenID Connect provider on loopback: real HTTP, real RS256 signatures, PKCE and client authentication."""

import base64
import hashlib
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

CLIENT, SECRET = "gateway", "s3cret of+the gateway"
KEY, OTHER_KEY = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))


class OidcProvider:
    """The provider; a test sets ``claims``, and what is wrong with it."""

    def __init__(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        self.claims = {"sub": "1234"}
        self.changes = {}
        """Members of the ID token that are not as they should be."""
        self.key, self.kid, self.published = KEY, "k1", {"k1": KEY}
        self.metadata = {}
        self.sign = None
        """Makes the ID token of its claims, if not as it should be."""
        self.answer = None
        """Answers a path, if not as it should be."""
        self.codes = {}
        self.requests = []
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def authorize(self, url):
        """Sign in as a browser does, and return the URL that the provider redirects to."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert (query["response_type"], query["client_id"]) == ("code", CLIENT)
        assert query["code_challenge_method"] == "S256"
        code = secrets.token_hex(8)
        self.codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state'], 'iss': self.issuer})}"

    def respond(self, path, form, authorization):
        self.requests.append(path)
        if self.answer is not None and (given := self.answer(path)) is not None:
            return given
        if path == "/.well-known/openid-configuration":
            endpoints = {f"{name}_endpoint": f"{self.issuer}/{name}" for name in ("authorization", "token")}
            return 200, {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/jwks", **endpoints, **self.metadata}
        if path == "/jwks":
            return 200, {"keys": [jwk(kid, key) for kid, key in self.published.items()]}
        return self._token(form, authorization)

    def _token(self, form, authorization):
        requested = self.codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        basic = base64.b64encode(f"{CLIENT}:s3cret%20of%2Bthe%20gateway".encode()).decode()
        is_client = authorization == f"Basic {basic}" or form.get("client_secret") == SECRET
        if requested is None or not is_client or requested["code_challenge"] != challenge.rstrip(b"=").decode():
            return 400, {"error": "invalid_grant"}
        if form.get("redirect_uri") != requested["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": requested["nonce"]}
        claims |= self.claims | self.changes
        claims = {name: value for name, value in claims.items() if value is not None}
        token = self.sign(claims) if self.sign else jwt.encode(claims, self.key, "RS256", headers={"kid": self.kid})
        return 200, {"access_token": "unused", "token_type": "Bearer", "id_token": token}


def jwk(kid, key):
    return json.loads(RSAAlgorithm.to_jwk(key.public_key())) | {"kid": kid, "use": "sig", "alg": "RS256"}


def _handler(provider):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._send(*provider.respond(self.path, {}, None))

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            self._send(*provider.respond(self.path, form, self.headers.get("Authorization")))

        def _send(self, status, document, headers=()):
            body = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            for name, value in (*headers, ("Content-Length", str(len(body)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    return Handler
