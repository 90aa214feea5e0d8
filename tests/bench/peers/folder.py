"""The working folder: keys, tokens, routes, roles and revoked ids, the same for every peer. Made once and used again."""

import base64
import datetime
import ipaddress
import json
import random
import time
import uuid
from pathlib import Path

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

ALGORITHMS = {"hs": "HS256", "rs": "RS256", "es": "ES256"}
ISSUER, AUDIENCE = "https://idp.local/", "gw"
ROUTES, PERMISSIONS = 100, 20
# The item of a route that is large, and that takes large bodies.
BODY, BODY_BYTES = "body", 1 << 20
TOKEN_LIFETIME = 30 * 86_400
HS_SECRET = b"0123456789abcdef0123456789abcdef"


def permission_of(route: int) -> str:
    return f"p{route % PERMISSIONS}"


def permissions_of(role: str) -> list[str]:
    """An editor has every permission, a viewer every second one."""
    return [f"p{number}" for number in range(0, PERMISSIONS, 2 if role == "viewer" else 1)]


class Folder:
    def __init__(self, path: Path):
        self.path = path
        for name in ("keys", "tokens", "config", "logs", "results"):
            (path / name).mkdir(parents=True, exist_ok=True)
        if not (path / "keys" / "complete").exists():
            self._make_keys()
        self._write_rules()
        body = self.path / "config" / BODY
        if not body.exists():
            body.write_bytes(b"x" * BODY_BYTES)

    def write(self, name: str, text: str) -> Path:
        """A configuration file of this name."""
        written = self.path / "config" / name
        written.write_text(text)
        return written

    def key(self, name: str) -> Path:
        return self.path / "keys" / name

    def log(self, name: str) -> Path:
        return self.path / "logs" / name

    def revoked(self) -> str:
        """One of the revoked token ids."""
        return (self.path / "config" / "revoked.list").read_text().split()[0]

    def signing_key(self, algorithm: str) -> bytes:
        return HS_SECRET if algorithm == "hs" else self.key(f"{algorithm}.pem").read_bytes()

    def token(self, algorithm: str, **claims) -> str:
        now = int(time.time())
        role = claims.pop("role", "editor")
        payload = {
            "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + TOKEN_LIFETIME, "sub": "user-0", "jti": uuid.uuid4().hex,
            "role": role, "roles": [f"ROLE_{role.upper()}"], "perms": permissions_of(role), **claims,
        }
        return jwt.encode(payload, self.signing_key(algorithm), algorithm=ALGORITHMS[algorithm], headers={"kid": f"k-{algorithm}"})

    def tokens(self, algorithm: str, count: int) -> Path:
        """A file of `count` tokens of as many subjects, one a line; those of an earlier run if they are fresh."""
        file = self.path / "tokens" / f"{algorithm}.{count}"
        if not file.exists() or time.time() - file.stat().st_mtime > TOKEN_LIFETIME / 2:
            part = file.with_suffix(".part")
            part.write_text("".join(self.token(algorithm, sub=f"user-{number:06d}") + "\n" for number in range(count)))
            part.rename(file)
        return file

    def certificate(self) -> tuple[Path, Path, Path]:
        """The certificate that every peer shows (ECDSA P-256, signed by itself), its key, and both in one file."""
        chain, key, both = (self.key(name) for name in ("tls.crt", "tls.key", "tls.pem"))
        if not both.exists():
            secret = ec.generate_private_key(ec.SECP256R1())
            name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gw.local")]), datetime.datetime.now(datetime.timezone.utc)
            # wrk sends the host of its script, the other load generators send the address.
            names = [x509.DNSName("gw.local"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            certificate = (
                x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(secret.public_key())
                .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
                .not_valid_after(now + datetime.timedelta(days=3650))
                .add_extension(x509.SubjectAlternativeName(names), critical=False).sign(secret, hashes.SHA256()))
            chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
            key.write_bytes(secret.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
            both.write_bytes(chain.read_bytes() + key.read_bytes())
        return chain, key, both

    def _make_keys(self) -> None:
        keys = {"rs": rsa.generate_private_key(public_exponent=65537, key_size=2048), "es": ec.generate_private_key(ec.SECP256R1())}
        for name, key in keys.items():
            self.key(f"{name}.pem").write_bytes(key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
            self.key(f"{name}.pub.pem").write_bytes(key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
        self.key("hs.key").write_bytes(HS_SECRET)
        rsa_numbers, ec_numbers = keys["rs"].public_key().public_numbers(), keys["es"].public_key().public_numbers()
        public = {
            "hs": {"kty": "oct", "k": base64url(HS_SECRET)},
            "rs": {"kty": "RSA", "n": base64url(rsa_numbers.n.to_bytes(256, "big")), "e": base64url(rsa_numbers.e.to_bytes(3, "big"))},
            "es": {"kty": "EC", "crv": "P-256", "x": base64url(ec_numbers.x.to_bytes(32, "big")), "y": base64url(ec_numbers.y.to_bytes(32, "big"))},
        }
        for name, parts in public.items():
            jwk = {**parts, "alg": ALGORITHMS[name], "kid": f"k-{name}", "use": "sig"}
            self.key(f"{name}.jwks.json").write_text(json.dumps({"keys": [jwk]}))
        # Tokens of older keys are worth nothing now.
        for stale in (self.path / "tokens").iterdir():
            stale.unlink()
        self.key("complete").touch()

    def _write_rules(self) -> None:
        self.write("routes.map", "".join(f"/api/v1/res{route}/ {permission_of(route)}\n" for route in range(ROUTES)))
        self.write("roles.map", "".join(f"{role}:{permission} 1\n" for role in ("viewer", "editor") for permission in permissions_of(role)))
        seeded = random.Random(7)
        revoked = [uuid.UUID(int=seeded.getrandbits(128)).hex for _ in range(1000)]
        self.write("revoked.list", "".join(f"{token_id}\n" for token_id in revoked))
        self.write("revoked.jsonl", "".join(json.dumps({"jti": token_id}) + "\n" for token_id in revoked))


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
