"""One Redis, a small upstream, and doorward processes that share what is revoked through that Redis."""

import base64
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import ed25519

KEY = ed25519.Key(os.urandom(32))
ISSUER = "http://bench"
POLICY = """version: 1
service: oms
upstream: oms
paths:
  /items: { get: 'item:view' }
  /edits: { get: 'item:edit' }
"""
ROLES = """version: 1
permissions: { oms: ['item:view', 'item:edit'] }
roles:
  ROLE_VIEWER: { permissions: ['item:view'] }
  ROLE_EDITOR: { permissions: ['item:edit'] }
  ROLE_REVOKER: { permissions: ['session:revoke'] }
"""


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(subject, session="-", number="-", roles=("ROLE_VIEWER",)):
    """A token of doorward's own kind: its keys are shared by all processes."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": "oms", "sub": subject, "iat": now, "exp": now + 3000, "roles": list(roles)}
    claims |= {"sid": session, "jti": number}
    header = {"alg": "EdDSA", "typ": "at+jwt", "kid": "bench"}
    text = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
    return text + "." + encoded(KEY.sign(text.encode()))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def upstream(listener):
    """Answers every request alike."""
    import asyncio

    async def serve(reader, writer):
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main():
        async with await asyncio.start_server(serve, sock=listener) as server:
            await server.serve_forever()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(main())


class Upstream:
    def __init__(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.process = multiprocessing.Process(target=upstream, args=(listener,), daemon=True)
        self.process.start()
        listener.close()

    def stop(self):
        self.process.kill()
        self.process.join()


class Redis:
    """redis-server on a port of its own; what is written survives kill -9."""

    def __init__(self, folder):
        self.folder, self.port, self.process = folder, free_port(), None
        os.makedirs(folder)
        self.start()

    def start(self):
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "yes"]
        with open(os.path.join(self.folder, "log"), "a") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + 20
        while True:
            try:
                if self.ask("PING") == b"+PONG\r\n":
                    return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > end:
                sys.exit(f"redis-server does not answer; see {self.folder}/log")
            time.sleep(0.002)

    def ask(self, *words):
        """The first bytes of the answer to one command."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            parts = [f"*{len(words)}\r\n"] + [f"${len(word)}\r\n{word}\r\n" for word in words]
            connection.sendall("".join(parts).encode())
            return connection.recv(64 * 1024)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def lose(self):
        """Forgets everything on disk; the server must have been killed."""
        shutil.rmtree(os.path.join(self.folder, "appendonlydir"), ignore_errors=True)

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def flush(self):
        self.ask("FLUSHALL")


class Gateway:
    """One doorward in a folder of its own. Without `public_key` it is the control plane."""

    def __init__(self, binary, folder, redis_url, upstream_port, public_key=None, more=""):
        self.binary, self.folder = binary, folder
        self.port, self.admin = free_port(), free_port()
        self.process = None
        os.makedirs(os.path.join(folder, "data"), exist_ok=True)
        publication = f'[publication]\npublic_keys = ["{public_key}"]\n' if public_key else ""
        files = {
            "policy.yaml": POLICY,
            "roles.yaml": ROLES,
            "doorward.toml": f"""
[gateway]
listen = "127.0.0.1:{self.port}"
policies = ["policy.yaml"]
workers = 1
[upstreams.oms]
endpoints = ["http://127.0.0.1:{upstream_port}"]
[auth]
local_keys = "local-keys.json"
[[auth.issuers]]
name = "doorward"
issuer = "{ISSUER}"
audience = ["oms"]
keys = "local"
algorithms = ["EdDSA"]
[roles]
file = "roles.yaml"
[identity]
enabled = false
[admin]
listen = "127.0.0.1:{self.admin}"
{f'[redis]{chr(10)}url = "{redis_url}"' if redis_url else ""}
{publication}
[log]
format = "json"
access = false
{more}
""",
        }
        for name, text in files.items():
            with open(os.path.join(folder, name), "w") as file:
                file.write(text)
        pair = {"d": encoded(KEY.seed), "x": encoded(KEY.public)}
        keys = {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "bench", "alg": "EdDSA", **pair}]}
        path = os.path.join(folder, "local-keys.json")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(keys, file)

    def command(self, *words):
        return [self.binary, *words, "--config", "doorward.toml"]

    def environment(self):
        # No setting of whoever runs this gets in.
        return {"PATH": os.environ.get("PATH", "")}

    def spawn(self):
        with open(os.path.join(self.folder, "log"), "a") as log:
            self.process = subprocess.Popen(
                self.command("run"), cwd=self.folder, env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def start(self, limit=60):
        """Starts it; how long it took from exec to ready, in seconds."""
        began = time.monotonic()
        self.spawn()
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() - began > limit:
                with open(os.path.join(self.folder, "log")) as log:
                    sys.exit(f"doorward is not ready (exit {self.process.poll()}):\n{log.read()[-4000:]}")
            time.sleep(0.001)
        return time.monotonic() - began

    def is_ready(self):
        return self.admin_get("/readyz")[0] == 200

    def admin_get(self, target):
        request = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{self.admin}\r\nConnection: close\r\n\r\n"
        try:
            with socket.create_connection(("127.0.0.1", self.admin), timeout=5) as connection:
                connection.sendall(request.encode())
                answer = b""
                while piece := connection.recv(65536):
                    answer += piece
        except OSError:
            return 0, ""
        head, _, body = answer.decode(errors="replace").partition("\r\n\r\n")
        return (int(head.split(" ")[1]) if head else 0), body

    def public_key(self):
        with open(os.path.join(self.folder, "data", "publication-key.jwks.json")) as file:
            return json.load(file)["keys"][0]["x"]

    def memory(self):
        """Resident memory in bytes."""
        with open(f"/proc/{self.process.pid}/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()


class Fleet:
    """The first gateway is the control plane, the others follow it."""

    def __init__(self, binary, folder, gateways, more=""):
        self.folder = folder
        self.upstream = Upstream()
        self.redis = Redis(os.path.join(folder, "redis"))
        self.gateways = []
        url, public_key = f"redis://127.0.0.1:{self.redis.port}", None
        for number in range(gateways):
            gateway = Gateway(binary, os.path.join(folder, f"gateway{number}"), url, self.upstream.port, public_key, more)
            gateway.start()
            public_key = public_key or gateway.public_key()
            self.gateways.append(gateway)

    @property
    def control(self):
        return self.gateways[0]

    def stop(self):
        for gateway in self.gateways:
            gateway.kill()
        self.redis.kill()
        self.upstream.stop()
