"""Whether a peer does the job: what must pass passes with the right identity, what must not is refused."""

import http.client
import time

from proxies import Setting, start

EVEN, ODD = "/api/v1/res42/items/1", "/api/v1/res41/items/1"


def check(peer: str, setting: Setting) -> bool:
    if peer.endswith("-pass"):
        return True
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
    wrong = []
    with start(peer, setting) as process:
        for name, (token, path, wanted) in cases.items():
            status, headers = get(process.port, token, path)
            if status != wanted:
                wrong.append(f"{name}: {status} instead of {wanted}")
            elif token == good and status == 200 and (headers.get("x-seen-user") != "user-000000" or headers.get("x-seen-evil")):
                wrong.append(f"{name}: the upstream saw {headers.get('x-seen-user')} {headers.get('x-seen-evil')}")
    print(f"{peer:20} {'does the job' if not wrong else '; '.join(wrong)}", flush=True)
    return not wrong


def get(port: int, token: str | None, path: str):
    headers = {"X-User-Id": "evil", "X-User-Evil": "1"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers
    finally:
        connection.close()
