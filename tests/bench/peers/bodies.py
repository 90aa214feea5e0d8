"""CPU and memory of the peers while bodies of 1 MiB go down (GET) and up (POST) over 8 connections.

    tests/bench/peers/run --validate-only                        # once: installs what is missing, makes keys
    DOORWARD=path/to/binary $PEERS_DIR/venv/bin/python3 -B tests/bench/peers/bodies.py [--rounds N] [PEER …]

$PEERS_DIR is the working folder of `run`, by default a folder in the temporary directory. The first peer is what the others are held against."""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from folder import Folder
from main import doorward_binary
from processes import NGINX_HEAD, Process, free_port
from proxies import PEERS, Setting

BODY_BYTES = 1024 * 1024
CONNECTIONS = 8
PATH = "/api/v1/res42/items/1"
LOAD = """
local built
function init()
  local body = os.getenv("METHOD") == "POST" and string.rep("x", tonumber(os.getenv("BYTES"))) or nil
  built = wrk.format(os.getenv("METHOD"), os.getenv("TARGET"), { ["Authorization"] = "Bearer " .. os.getenv("TOKEN") }, body)
end
function request() return built end
function done(summary)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d\\n", summary.requests, errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


class Upstream(Process):
    """Answers GET with 1 MiB from the page cache, and POST when it has read the whole body."""

    def __init__(self, folder: Folder, core: int | None):
        port = free_port()
        files = folder.path / "bodies"
        files.mkdir(exist_ok=True)
        (files / "body").write_bytes(b"x" * BODY_BYTES)
        modules = "".join(f"load_module /usr/lib/nginx/modules/{module}.so;\n" for module in ("ndk_http_module", "ngx_http_lua_module"))
        config = modules + NGINX_HEAD.format(logs=folder.path / "logs", name="bodies") + f"""
 sendfile on; client_max_body_size 64m; client_body_buffer_size 2m;
 server {{ listen 127.0.0.1:{port} backlog=4096; default_type application/octet-stream;
  location /api/ {{ if ($request_method = POST) {{ rewrite ^ /up last; }} rewrite ^ /body last; }}
  location /body {{ root {files}; }}
  location /up {{ content_by_lua_block {{ ngx.req.read_body() local body = ngx.req.get_body_data() ngx.print(body and #body or 0) }} }} }} }}
"""
        super().__init__(["nginx", "-c", str(folder.write("bodies.conf", config))], folder.log("bodies.log"), port, core)


def start(peer: str, setting: Setting, core: int | None) -> Process:
    port = free_port()
    argv = PEERS[peer](setting, port)
    if peer == "doorward":
        policy = setting.folder.path / "config" / "doorward-policy.yaml"
        lines = policy.read_text().splitlines()
        posts = [line.replace("get:", "post:") for line in lines]
        policy.write_text("".join(f"{line}\n" + (f"{post}\n" if post != line else "") for line, post in zip(lines, posts)))
    return Process(argv, setting.folder.log(f"{peer}-bodies.log"), port, core)


class Peak:
    """The largest resident memory of a process while it is watched, in MiB."""

    def __init__(self, process: Process):
        self.process, self.kib, self.ended = process, 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self) -> None:
        while not self.ended.wait(0.1):
            resident = 0
            for pid in self.process.family():
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                except OSError:
                    continue
                resident += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
            self.kib = max(self.kib, resident)

    def __enter__(self) -> "Peak":
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        self.thread.join()


def load(port: int, method: str, token: str, seconds: int, core: int, script: Path) -> int:
    argv = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}/"]
    environment = {**os.environ, "METHOD": method, "TARGET": PATH, "TOKEN": token, "BYTES": str(BODY_BYTES)}
    output = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False).stdout
    for line in output.splitlines():
        if line.startswith("RESULT "):
            requests, errors = map(int, line.split()[1:])
            if errors:
                raise SystemExit(f"{errors} of {requests} requests failed")
            return requests
    raise SystemExit(f"wrk failed: {output}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", default=["haproxy-jwt", "doorward"], metavar="PEER", help=f"any of {' '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--proxy-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    chosen = parser.parse_args()
    folder = Folder(Path(os.environ.get("PEERS_DIR", f"{tempfile.gettempdir()}/doorward-peers-{os.getuid()}")))
    binary = doorward_binary() if "doorward" in chosen.peers else None
    script = folder.write("bodies.lua", LOAD)
    token = folder.token("rs")
    cpu = {(peer, method): [] for peer in chosen.peers for method in ("GET", "POST")}
    peak = {key: 0.0 for key in cpu}
    with Upstream(folder, chosen.load_core) as upstream:
        setting = Setting(folder, "rs", upstream.port, binary)
        for _ in range(chosen.rounds):
            for method in ("GET", "POST"):
                for peer in chosen.peers:
                    with start(peer, setting, chosen.proxy_core) as proxy:
                        load(proxy.port, method, token, 1, chosen.load_core, script)
                        before = proxy.cpu_seconds()
                        with Peak(proxy) as watched:
                            requests = load(proxy.port, method, token, chosen.seconds, chosen.load_core, script)
                        cpu[peer, method].append((proxy.cpu_seconds() - before) * 1e6 / requests)
                        peak[peer, method] = max(peak[peer, method], watched.kib / 1024)
                        print(f"{peer} {method}: {cpu[peer, method][-1]:.0f} µs a request, {requests} requests, {watched.kib / 1024:.1f} MiB", flush=True)
    print(f"\n| peer | way | CPU µs for 1 MiB (min-max) | / {chosen.peers[0]} | peak MiB |\n|---|---|---|---|---|")
    for (peer, method), micros in cpu.items():
        ratio = statistics.median(own / first for own, first in zip(micros, cpu[chosen.peers[0], method]))
        way = "down" if method == "GET" else "up"
        print(f"| {peer} | {way} | {statistics.median(micros):.0f} ({min(micros):.0f}-{max(micros):.0f}) | {ratio:.2f} | {peak[peer, method]:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
