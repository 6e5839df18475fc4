import json

from gateway.tests.http_plane import (
    route,
    running,
)  # fmt: skip

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


LARGE = 1 << 25


def plane_before(tmp_path, url, **more):
    return running(
        tmp_path, [route("r", "/r", f"{url}/r"), route("rest", "/rest/{rest...}", f"{url}/{{rest}}")], **more
    )


def is_problem(answer, status, reason):
    reply = json.loads(answer.body)
    assert (answer.status, reply["reason"]) == (status, reason)
    return True


def certificate_of(ip, folder):
    """Make a self-signed certificate. Gives it, and a file of it and its key."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, ip)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(ip))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    text = made.public_bytes(serialization.Encoding.PEM).decode()
    path = folder / "upstream.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_text(text + secret.decode())
    return text, path
