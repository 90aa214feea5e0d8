"""PyJWT as a stranger: `make ISSUER AUDIENCE` prints its keys and tokens, good and forged; `judge` reads
{keys, issuer, audience, tokens} and prints for each token null where it is good, else why not."""

import base64
import hashlib
import hmac
import json
import sys
import time

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from jwt.algorithms import get_default_algorithms

ALGORITHMS = ["HS256", "RS256", "ES256", "EdDSA"]


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(header: dict, claims: dict, sign) -> str:
    """A token whose every part is chosen here."""
    message = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
    return f"{message}.{encoded(sign(message.encode()))}"


def make(issuer: str, audience: str) -> dict:
    keys = {
        "HS256": b"a secret of PyJWT's, which is long enough for HS256",
        "RS256": rsa.generate_private_key(65537, 2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    jwks = []
    for name, key in keys.items():
        public = key if name == "HS256" else key.public_key()
        jwk = json.loads(get_default_algorithms()[name].to_jwk(public))
        jwk.pop("key_ops", None)
        jwks.append({**jwk, "kid": f"py-{name}", "alg": name, "use": "sig"})

    def claims(**changes) -> dict:
        now = int(time.time())
        good = {"iss": issuer, "aud": audience, "sub": "alice", "iat": now, "exp": now + 600, "roles": ["ROLE_VIEWER"]}
        return {name: value for name, value in {**good, **changes}.items() if value is not ...}

    def good(name: str, header: dict | None = None, **changes) -> str:
        headers = {"kid": f"py-{name}", **(header or {})}
        return jwt.encode(claims(**changes), keys[name], algorithm=name, headers=headers)

    now = int(time.time())
    accepted = {name: good(name) for name in ALGORITHMS}
    accepted |= {f"{name} without kid": jwt.encode(claims(), keys[name], algorithm=name) for name in ALGORITHMS}
    accepted |= {"an audience among several": good("ES256", aud=["other", audience])}

    forged = []

    def forge(name: str, token: str, reason: str) -> None:
        forged.append({"name": f"PyJWT: {name}", "token": token, "reason": reason})

    forge("alg none", jwt.encode(claims(), None, algorithm="none"), "alg_not_allowed")
    forge("alg none and kid", jwt.encode(claims(), None, algorithm="none", headers={"kid": "py-RS256"}), "alg_not_allowed")
    for name in ["RS256", "ES256", "EdDSA"]:
        public = keys[name].public_key()
        info = serialization.PublicFormat.SubjectPublicKeyInfo
        pem = public.public_bytes(serialization.Encoding.PEM, info)
        der = public.public_bytes(serialization.Encoding.DER, info)
        jwk = json.dumps(next(jwk for jwk in jwks if jwk["alg"] == name)).encode()
        ssh = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        for form, secret in [("PEM", pem), ("PEM, stripped", pem.strip()), ("DER", der), ("JWK", jwk), ("OpenSSH", ssh)]:
            # PyJWT itself refuses such a secret, so it is done by hand.
            def sign(message: bytes, secret: bytes = secret) -> bytes:
                return hmac.new(secret, message, hashlib.sha256).digest()

            header = {"alg": "HS256", "typ": "JWT"}
            forge(f"HS256 under the {form} of {name}", compact({**header, "kid": f"py-{name}"}, claims(), sign), "alg_not_allowed")
            forge(f"HS256 under the {form} of {name}, kid of HS256", compact({**header, "kid": "py-HS256"}, claims(), sign), "bad_signature")
            forge(f"HS256 under the {form} of {name}, no kid", compact(header, claims(), sign), "bad_signature")
    for name in ["HS384", "HS512"]:
        forge(name, jwt.encode(claims(), keys["HS256"] * 2, algorithm=name, headers={"kid": "py-HS256"}), "alg_not_allowed")
    for name in ["RS384", "RS512", "PS256", "PS384", "PS512"]:
        forge(name, jwt.encode(claims(), keys["RS256"], algorithm=name, headers={"kid": "py-RS256"}), "alg_not_allowed")
    for name, curve in [("ES384", ec.SECP384R1()), ("ES512", ec.SECP521R1()), ("ES256K", ec.SECP256K1())]:
        key = ec.generate_private_key(curve)
        forge(name, jwt.encode(claims(), key, algorithm=name, headers={"kid": "py-ES256"}), "alg_not_allowed")
    strangers = {"RS256": rsa.generate_private_key(65537, 2048), "ES256": ec.generate_private_key(ec.SECP256R1()),
                 "EdDSA": ed25519.Ed25519PrivateKey.generate(), "HS256": b"another secret, which is long enough for HS256"}
    for name, key in strangers.items():
        forge(f"a stranger's {name}", jwt.encode(claims(), key, algorithm=name, headers={"kid": f"py-{name}"}), "bad_signature")
        forge(f"a stranger's {name} with its kid", jwt.encode(claims(), key, algorithm=name, headers={"kid": "mine"}), "unknown_key")
    for name in ALGORITHMS:
        for member, value in [("crit", ["exp"]), ("jku", "https://evil.test"), ("x5u", "https://evil.test"),
                              ("jwk", jwks[1]), ("x5c", ["AAAA"]), ("cty", "JWT"), ("typ", "dpop+jwt"), ("zip", "DEF")]:
            forge(f"{name} with {member}", good(name, {member: value}), "malformed_token")
        forge(f"{name} expired", good(name, iat=now - 3000, exp=now - 60), "expired")
        forge(f"{name} too early", good(name, nbf=now + 300), "not_yet_valid")
        forge(f"{name} of the future", good(name, iat=now + 300), "not_yet_valid")
        forge(f"{name} of another issuer", good(name, iss=issuer + "x"), "wrong_issuer")
        forge(f"{name} for another audience", good(name, aud=[audience + "x"]), "wrong_audience")
        forge(f"{name} without exp", good(name, exp=...), "malformed_token")
        forge(f"{name} without sub", good(name, sub=...), "malformed_token")
        forge(f"{name} that lives for a day", good(name, exp=now + 86_400), "malformed_token")
        forge(f"{name} within {name}", jwt.api_jws.encode(good(name).encode(), keys[name], algorithm=name, headers={"kid": f"py-{name}"}), "malformed_token")
        detached = jwt.api_jws.encode(json.dumps(claims()).encode(), keys[name], algorithm=name, is_payload_detached=True)
        forge(f"{name} detached", detached, "malformed_token")

    # Paddings of RSA that a verifier may not take (RFC 8017 section 9.2; Bleichenbacher's of 2006 among them).
    private = keys["RS256"].private_numbers()
    modulus, length = private.public_numbers.n, 256
    info = bytes.fromhex("3031300d060960864801650304020105000420")
    without_null = bytes.fromhex("302f300b0609608648016503040201" + "0420")
    long_length = bytes.fromhex("308131300d060960864801650304020105000420")

    def padded(tail: bytes, filler: bytes = b"\xff", first: bytes = b"\x00\x01", end: bytes = b"\x00") -> bytes:
        return first + filler * (length - len(first) - len(end) - len(tail)) + end + tail

    variants = {
        "the hash alone": lambda digest: padded(digest),
        "no NULL in the parameters": lambda digest: padded(without_null + digest),
        "a long form of length": lambda digest: padded(long_length + digest),
        "filler of zeros": lambda digest: padded(info + digest, filler=b"\x00"),
        "filler of 0x01": lambda digest: padded(info + digest, filler=b"\x01"),
        "block type 2": lambda digest: padded(info + digest, first=b"\x00\x02"),
        "block type 0": lambda digest: padded(info + digest, first=b"\x00\x00"),
        "no zero behind the filler": lambda digest: padded(info + digest, end=b"\xff"),
        "SHA-1's identifier": lambda digest: padded(bytes.fromhex("3021300906052b0e03021a05000414") + digest[:20]),
        "SHA-512's identifier": lambda digest: padded(bytes.fromhex("3051300d060960864801650304020305000440") + digest * 2),
        "garbage behind the hash": lambda digest: b"\x00\x01" + b"\xff" * 8 + b"\x00" + info + digest + b"\x00" * (length - 11 - 51),
        "garbage in the parameters": lambda digest: b"\x00\x01" + b"\xff" * 8 + b"\x00" + bytes.fromhex("3081ea3081c50609608648016503040201") + b"\x05" * 180 + digest + b"\x00" * (length - 11 - 197 - 32),
        "a hash of zeros": lambda digest: padded(info + bytes(32)),
    }

    def raw(block) -> bytes:
        return lambda message: pow(int.from_bytes(block(hashlib.sha256(message).digest())[:length], "big"), private.d, modulus).to_bytes(length, "big")

    header = {"alg": "RS256", "typ": "JWT", "kid": "py-RS256"}
    accepted["RSA by hand, padded well"] = compact(header, claims(), raw(lambda digest: padded(info + digest)))
    for name, block in variants.items():
        forge(f"RSA padded with {name}", compact(header, claims(), raw(block)), "bad_signature")
    return {"keys": {"keys": jwks}, "accepted": accepted, "forged": forged}


def judge(question: dict) -> list:
    keys = question["keys"]["keys"]

    def verdict(token: str) -> str | None:
        try:
            header = jwt.get_unverified_header(token)
            # The key of that name, or without a name the only one of that algorithm.
            member = "kid" if "kid" in header else "alg"
            [jwk] = [jwk for jwk in keys if jwk[member] == header[member]]
            claims = jwt.decode(token, jwt.PyJWK(jwk), algorithms=[jwk["alg"]], issuer=question["issuer"],
                                audience=question["audience"], leeway=30, options={"require": ["exp", "sub"]})
            return None if isinstance(claims, dict) else "no claims"
        except Exception as error:  # Whatever it stumbles over is a no.
            return f"{type(error).__name__}: {error}"

    return [verdict(token) for token in question["tokens"]]


if __name__ == "__main__":
    if sys.argv[1] == "make":
        print(json.dumps(make(*sys.argv[2:])))
    else:
        print(json.dumps(judge(json.load(sys.stdin))))
