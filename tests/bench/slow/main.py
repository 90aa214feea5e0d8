"""The command line, the working folder, the rounds and the table."""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
ATTACKS = {
    "none": None,
    "slow heads (-H)": (["-H", "-i", "1", "-x", "24", "-t", "GET"], "/page"),
    "slow bodies (-B)": (["-B", "-i", "1", "-x", "24", "-s", "60000", "-t", "POST"], "/upload"),
    "slow reading (-X)": (["-X", "-n", "1", "-z", "32", "-w", "512", "-y", "1024"], "/large"),
}
NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; worker_processes 1;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {folder}/bodies; proxy_temp_path {folder}/proxied; client_body_timeout 600s;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; keepalive_requests 1000000;
  server {{
    listen 127.0.0.1:{port} backlog=8192; root {folder}/www;
    location = /upload {{ proxy_pass http://127.0.0.1:{port}/taken; }}
    location = /taken {{ return 200 "taken"; }}
  }}
}}
"""
SETTINGS = """
[gateway]
listen = "127.0.0.1:{gateway}"
policies = ["policy.yaml"]
workers = 1
{tls}
[upstreams.slow]
endpoints = ["http://127.0.0.1:{service}"]
[roles]
file = "roles.yaml"
[identity]
enabled = false
[admin]
listen = "127.0.0.1:{admin}"
[auth]
local_keys = "keys.json"
[[auth.issuers]]
name = "local"
issuer = "http://localhost"
audience = ["slow"]
keys = "local"
"""
POLICY = """
version: 1
service: slow
upstream: slow
paths:
  /page: { get: page:view }
  /large: { get: page:view }
  /upload: { post: page:view }
"""
ROLES = """
version: 1
permissions: { slow: ["page:view"], doorward: ["session:revoke", "metrics:view"] }
roles: { ROLE_USER: { permissions: ["page:view"] } }
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/slow/run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=10, help="of honest requests in each row (default: 10)")
    parser.add_argument("--connections", type=int, default=1000, help="of the attack (default: 1000)")
    parser.add_argument("--onset", type=int, default=200, help="connections of the attack that are opened a second (default: 200)")
    parser.add_argument("--clients", type=int, default=8, help="honest connections (default: 8)")
    parser.add_argument("--rate", type=int, default=50, help="requests a second on each of them (default: 50)")
    parser.add_argument("--protocol", choices=["h1", "h2"], default="h1", help="of the honest clients (default: h1)")
    parser.add_argument("--tls", action="store_true", help="everybody comes by TLS")
    parser.add_argument("--proxy-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    return parser.parse_args()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def binary() -> str:
    if "DOORWARD" in os.environ:
        return shutil.which(os.environ["DOORWARD"]) or sys.exit(f"$DOORWARD names no program: {os.environ['DOORWARD']}")
    subprocess.run(["cargo", "build", "--profile", "dist", "--bin", "doorward"], cwd=REPOSITORY, check=True)
    return str(REPOSITORY / os.environ.get("CARGO_TARGET_DIR", "target") / "dist" / "doorward")


@contextlib.contextmanager
def process(argv: list[str], core: int, folder: Path, name: str):
    with (folder / f"{name}.log").open("w") as log:
        child = subprocess.Popen(["taskset", "-c", str(core), *argv], cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def until(what: str, look, child: subprocess.Popen, log: Path):
    deadline = time.monotonic() + 30
    while not look():
        if child.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"not there: {what}; the end of {log}:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=2).status == 200
    except OSError:
        return False


def connections(admin: int) -> float:
    """How many the gateway has open."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=10).read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
               if line.startswith("doorward_connections{") and 'listener="gateway"' in line)


def lay_out(folder: Path, chosen, ports: dict) -> None:
    for name in ("www", "bodies", "proxied"):
        (folder / name).mkdir()
    # nginx drops root's rights; the files must be readable still.
    folder.chmod(0o755)
    (folder / "www/page").write_text("x" * 100)
    (folder / "www/large").write_bytes(b"x" * 1_000_000)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=ports["service"]))
    tls = ""
    if chosen.tls:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                        "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], cwd=folder, check=True, capture_output=True)
        tls = 'tls = { certificates = [{ cert = "cert.pem", key = "key.pem" }] }'
    (folder / "doorward.toml").write_text(SETTINGS.format(tls=tls, **ports))
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "roles.yaml").write_text(ROLES)


def honest(chosen, folder: Path, url: str, token: str) -> dict:
    """Paced requests: their p50 and p99 in microseconds, and how many failed."""
    log = folder / "honest.log"
    log.unlink(missing_ok=True)
    count = chosen.clients * chosen.rate * chosen.seconds
    argv = ["taskset", "-c", str(chosen.load_core), "h2load", "-n", str(count), "-c", str(chosen.clients), "--rps", str(chosen.rate),
            "--log-file", str(log), "-H", f"authorization: Bearer {token}", f"{url}/page"]
    if chosen.protocol == "h1":
        argv.insert(-1, "--h1")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    rows = [line.split("\t") for line in log.read_text().splitlines()] if log.exists() else []
    if len(rows) < count:
        raise SystemExit(f"h2load made {len(rows)} of {count} requests:\n{done.stdout}{done.stderr}")
    times = sorted(int(row[2]) for row in rows)
    return {"p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100], "failed": sum(row[1] != "200" for row in rows)}


def measure(chosen, folder: Path, program: str) -> list[dict]:
    ports = {name: free_port() for name in ("gateway", "admin", "service")}
    lay_out(folder, chosen, ports)
    minted = subprocess.run([program, "token", "mint", "--sub", "alice", "--role", "ROLE_USER", "--ttl", "1h",
                             "--config", "doorward.toml"], cwd=folder, capture_output=True, text=True, check=False)
    if minted.returncode != 0:
        raise SystemExit(minted.stderr)
    token = minted.stdout.strip()
    url = f"{'https' if chosen.tls else 'http'}://localhost:{ports['gateway']}"
    rows = []
    with process(["nginx", "-c", str(folder / "nginx.conf")], chosen.load_core, folder, "nginx") as nginx:
        until("nginx", lambda: answers(f"http://127.0.0.1:{ports['service']}/page"), nginx, folder / "nginx.log")
        for number in range(1, chosen.rounds + 1):
            for name, attack in ATTACKS.items():
                argv = [program, "run", "--config", "doorward.toml"]
                with contextlib.ExitStack() as stack:
                    doorward = stack.enter_context(process(argv, chosen.proxy_core, folder, "doorward"))
                    until("doorward", lambda: answers(f"http://127.0.0.1:{ports['admin']}/readyz"), doorward, folder / "doorward.log")
                    # Warm, so that the first requests do not count.
                    honest(argparse.Namespace(**{**vars(chosen), "seconds": 1}), folder, url, token)
                    if attack:
                        kind, path = attack
                        argv = ["slowhttptest", "-c", str(chosen.connections), "-r", str(chosen.onset), "-l", "600", "-p", "30", *kind,
                                "-j", f"a=b\r\nAuthorization: Bearer {token}", "-u", f"{url}{path}"]
                        slow = stack.enter_context(process(argv, chosen.load_core, folder, "slowhttptest"))
                        until("the first connections of the attack", lambda: connections(ports["admin"]) >= 10, slow, folder / "slowhttptest.log")
                    # The onset is part of what honest callers suffer.
                    row = {"round": number, "attack": name, **honest(chosen, folder, url, token)}
                    row["connections"] = int(connections(ports["admin"]))
                    if attack and row["connections"] < chosen.connections * 0.9:
                        print(f"the attack has only {row['connections']} connections in the end", file=sys.stderr)
                rows.append(row)
                print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    return rows


def print_table(chosen, rows: list[dict]) -> None:
    print(f"\n{chosen.connections} attacking connections; honest: {chosen.protocol}{' with TLS' if chosen.tls else ''}, "
          f"{chosen.clients * chosen.rate} requests/s; {chosen.rounds} rounds of {chosen.seconds} s, medians\n")
    print("| attack | p50 µs | p99 µs | p99 / p99 without | failed |\n|---|---|---|---|---|")
    calm = {row["round"]: row["p99"] for row in rows if row["attack"] == "none"}
    for name in ATTACKS:
        mine = [row for row in rows if row["attack"] == name]
        p50, p99 = (statistics.median(row[key] for row in mine) for key in ("p50", "p99"))
        ratio = statistics.median(row["p99"] / calm[row["round"]] for row in mine)
        print(f"| {name} | {p50:.0f} | {p99:.0f} | {ratio:.2f} | {sum(row['failed'] for row in mine)} |")


def main() -> None:
    chosen = arguments()
    program = binary()
    with tempfile.TemporaryDirectory(prefix="doorward-slow-") as folder:
        print_table(chosen, measure(chosen, Path(folder), program))


if __name__ == "__main__":
    main()
