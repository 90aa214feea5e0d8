"""What is asked of each peer, and which load generator asks it."""

import os
import re
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from folder import BODY, BODY_BYTES, ROUTES, Folder

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Load:
    """What a load generator counted. `errors` are bad statuses, broken connections and timeouts."""

    requests: int
    micros: int
    errors: int
    p50_us: int
    p99_us: int


@dataclass(frozen=True)
class Scenario:
    about: str
    drive: Callable
    tls: bool = False
    http2: bool = False
    # Whether each request has a token of its own; the other generators send one set of fields with every request.
    rotates: bool = True
    connections: int = 32


def wrk(port: int, seconds: int, chosen, folder: Folder, close: bool = False, item: str = "", upload: int = 0) -> Load:
    """`close` ends the connection with each request; wrk then resumes the TLS session on the next. Requests for one item only,
    and so many bytes with each, if this is said."""
    scheme = "https" if SCENARIOS[chosen.scenario].tls else "http"
    argv = ["wrk", "-t1", f"-c{chosen.connections}", f"-d{seconds}s", "-s", str(HERE / "load.lua"), f"{scheme}://127.0.0.1:{port}/"]
    more = {"TOKENS": str(folder.tokens(chosen.algorithm, chosen.tokens)), "CONNECTION": "close" if close else "", "ITEM": item, "UPLOAD": str(upload)}
    output = run(chosen, argv, more)
    found = re.search(r"^RESULT (.*)$", output, re.M) or fail("wrk", output)
    requests, micros, bad_status, broken, late, p50, _, p99 = map(int, found[1].split())
    return Load(requests, micros, bad_status + broken + late, p50, p99)


def wrk_closing(port: int, seconds: int, chosen, folder: Folder) -> Load:
    return wrk(port, seconds, chosen, folder, close=True)


def downloads(port: int, seconds: int, chosen, folder: Folder) -> Load:
    return wrk(port, seconds, chosen, folder, item=BODY)


def uploads(port: int, seconds: int, chosen, folder: Folder) -> Load:
    return wrk(port, seconds, chosen, folder, item=BODY, upload=BODY_BYTES)


def h2load(port: int, seconds: int, chosen, folder: Folder) -> Load:
    scheme = "https" if SCENARIOS[chosen.scenario].tls else "http"
    targets = folder.write("targets", "".join(f"{scheme}://127.0.0.1:{port}/api/v1/res{(number * 37 + 42) % ROUTES}/items/12345\n" for number in range(ROUTES)))
    log = folder.log("h2load.tsv")
    log.unlink(missing_ok=True)
    argv = ["h2load", "-t1", f"-c{chosen.connections}", f"-m{chosen.streams}", f"-D{seconds}", f"--log-file={log}", "-i", str(targets)]
    output = run(chosen, argv + [part for field in fields(chosen, folder) for part in ("-H", field)])
    counts = re.search(r"^requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed", output, re.M) or fail("h2load", output)
    statuses = re.search(r"^status codes: (\d+) 2xx", output, re.M) or fail("h2load", output)
    requests = int(counts[1])
    # Begin, status and duration of each request; what was under way at the end has no duration.
    rows = (line.split() for line in log.read_text().splitlines())
    micros = sorted(int(row[2]) for row in rows if len(row) > 2 and int(row[2]) >= 0)
    return Load(requests, seconds * 1_000_000, int(counts[2]) + requests - int(statuses[1]), *percentiles(micros))


def ab(port: int, seconds: int, chosen, folder: Folder) -> Load:
    """A new connection and a whole TLS handshake for every request: ab keeps no session."""
    argv = ["ab", "-q", "-c", str(chosen.connections), "-t", str(seconds), "-n", "10000000", "-s", "5"]
    argv += [part for field in fields(chosen, folder) for part in ("-H", field)]
    output = run(chosen, argv + [f"https://127.0.0.1:{port}/api/v1/res42/items/12345"])
    def number(name: str, absent: int | None = None) -> float:
        found = re.search(rf"{name}\D*([\d.]+)", output)
        return float(found[1]) if found else absent if absent is not None else fail("ab", output)
    errors = number("Failed requests:") + number("Non-2xx responses:", 0)
    return Load(int(number("Complete requests:")), int(number("Time taken for tests:") * 1e6), int(errors),
                int(number(r"\n +50%") * 1000), int(number(r"\n +99%") * 1000))


def fields(chosen, folder: Folder) -> list[str]:
    """What every request carries, where they all carry the same."""
    with folder.tokens(chosen.algorithm, chosen.tokens).open() as tokens:
        return [f"authorization: Bearer {tokens.readline().strip()}", "accept: application/json"]


def percentiles(micros: list[int]) -> tuple[int, int]:
    if len(micros) < 2:
        return 0, 0
    cuts = statistics.quantiles(micros, n=100)
    return round(cuts[49]), round(cuts[98])


def run(chosen, argv: list[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(["taskset", "-c", str(chosen.load_core), *argv], env={**os.environ, **(environment or {})},
                          capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def fail(name: str, output: str):
    raise SystemExit(f"{name} failed: {output[-2000:]}")


SCENARIOS = {
    "h1": Scenario("HTTP/1.1, keep-alive", wrk),
    "h2c": Scenario("HTTP/2 without TLS", h2load, http2=True, rotates=False),
    "down": Scenario("answers of 1 MiB over HTTP/1.1", downloads, connections=8),
    "up": Scenario("requests of 1 MiB over HTTP/1.1", uploads, connections=8),
    "tls-down": Scenario("answers of 1 MiB over HTTP/1.1 and TLS 1.3", downloads, tls=True, connections=8),
    "tls-up": Scenario("requests of 1 MiB over HTTP/1.1 and TLS 1.3", uploads, tls=True, connections=8),
    "tls-h1": Scenario("HTTP/1.1 over TLS 1.3, keep-alive", wrk, tls=True),
    "tls-h2": Scenario("HTTP/2 over TLS 1.3", h2load, tls=True, http2=True, rotates=False),
    "tls-new": Scenario("a new TLS 1.3 connection for every request, with a whole handshake", ab, tls=True, rotates=False),
    "tls-resumed": Scenario("a new TLS 1.3 connection for every request, the session resumed", wrk_closing, tls=True),
}
