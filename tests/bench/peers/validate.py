"""Whether a peer does the job: what must pass passes with the right identity, what must not is refused."""

import re
import subprocess
import time

from proxies import Setting, start

EVEN, ODD = "/api/v1/res42/items/1", "/api/v1/res41/items/1"


def check(peer: str, setting: Setting) -> bool:
    folder, algorithm = setting.folder, setting.algorithm
    envoy = peer.startswith("envoy")
    good = folder.token(algorithm, sub="user-000000")
    flipped = "A" if good[-20] != "A" else "B"
    def viewer(**claims) -> str:
        return folder.token(algorithm, role="viewer", **claims)
    cases = {
        "good": (good, EVEN, 200),
        "none": (None, EVEN, 401),
        "tampered": (good[:-20] + flipped + good[-19:], EVEN, 401),
        "expired": (viewer(iat=int(time.time()) - 7200, exp=int(time.time()) - 3600), EVEN, 401),
        "issuer": (viewer(iss="x"), EVEN, 401),
        # Envoy's JWT filter answers 403 to a wrong audience.
        "audience": (viewer(aud="x"), EVEN, 403 if envoy else 401),
        "viewer": (viewer(), EVEN, 200),
        "permission": (viewer(), ODD, 403),
        # doorward and Envoy's RBAC filter deny what is not listed; the others answer that it is not there.
        "route": (good, "/nope/x", 403 if envoy or peer == "doorward" else 404),
        "revoked": (folder.token(algorithm, jti=folder.revoked()), EVEN, 401),
        "again": (good, EVEN, 200),
    }
    if envoy:
        del cases["revoked"]  # Envoy has no list of revoked ids.
    if peer.endswith("-pass"):
        cases = {"good": cases["good"]}
    wrong = []
    with start(peer, setting) as process:
        for name, (token, path, wanted) in cases.items():
            status, headers = get(process.port, token, path, setting)
            if status != wanted:
                wrong.append(f"{name}: {status} instead of {wanted}")
            elif token == good and status == 200 and not peer.endswith("-pass") and (headers.get("x-seen-user") != "user-000000" or headers.get("x-seen-evil")):
                wrong.append(f"{name}: the upstream saw {headers.get('x-seen-user')} {headers.get('x-seen-evil')}")
        agreed = agreement(process.port) if setting.tls else ""
        if setting.tls and agreed != AGREED:
            wrong.append(f"TLS: {agreed} instead of {AGREED}")
    print(f"{peer:20} {'does the job' if not wrong else '; '.join(wrong)}", flush=True)
    return not wrong


# What every peer and every load generator agree upon, each by its own defaults.
AGREED = "TLSv1.3, TLS_AES_256_GCM_SHA384, X25519, ECDSA"


def agreement(port: int) -> str:
    """Version, cipher, key exchange and kind of certificate."""
    argv = ["openssl", "s_client", "-brief", "-connect", f"127.0.0.1:{port}", "-servername", "gw.local"]
    output = subprocess.run(argv, input="", capture_output=True, text=True, check=False)
    wanted = [r"Protocol version: (\S+)", r"Ciphersuite: (\S+)", r"Server Temp Key: (\w+)", r"Signature type: (\w+)"]
    found = [re.search(pattern, output.stderr + output.stdout) for pattern in wanted]
    return ", ".join(match[1] if match else "?" for match in found)


def get(port: int, token: str | None, path: str, setting: Setting):
    """Status and fields of the answer, asked as the scenario asks."""
    version = "--http1.1" if not setting.http2 else "--http2" if setting.tls else "--http2-prior-knowledge"
    argv = ["curl", "-sk", version, "-m", "5", "-o", "/dev/null", "-D", "-", "-H", "X-User-Id: evil", "-H", "X-User-Evil: 1"]
    argv += ["-H", f"Authorization: Bearer {token}"] if token else []
    scheme = "https" if setting.tls else "http"
    output = subprocess.run([*argv, f"{scheme}://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=False)
    line, *fields = output.stdout.splitlines() or ["HTTP/0 0"]
    if line.startswith("HTTP/2") != setting.http2:
        return f"{line.split()[0]}", {}
    return int(line.split()[1]), {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
