"""CPU per request of each peer, in rounds in which the peers take turns, and memory."""

import csv
import os
import resource
import socket
import statistics
import time
from pathlib import Path

from proxies import Setting, start
from scenarios import SCENARIOS

TICKS = os.sysconf("SC_CLK_TCK")
COLUMNS = ["round", "peer", "cpu_us", "rps", "p50_us", "p99_us", "errors", "requests", "peak_mib", "foreign_pct"]


def rounds(chosen, setting: Setting, upstream) -> list[dict]:
    """Measures; every row is printed and kept in the folder's `results` as it comes."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{chosen.scenario}-{chosen.algorithm}-{chosen.tokens}-{chosen.connections}.csv"
    rows = []
    with (setting.folder.path / "results" / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for number in range(1, chosen.rounds + 1):
            for peer in chosen.peers:
                row = {"round": number, "peer": peer, **one(peer, chosen, setting, upstream)}
                rows.append(row)
                writer.writerow(row)
                file.flush()
                print(" ".join(f"{column}={row[column]}" for column in COLUMNS), flush=True)
    return rows


def one(peer: str, chosen, setting: Setting, upstream) -> dict:
    drive = SCENARIOS[chosen.scenario].drive
    with start(peer, setting, chosen.proxy_core) as proxy:
        # Warm: connections, caches, the page cache of the log.
        drive(proxy.port, 2 if chosen.tokens > 10_000 else 1, chosen, setting.folder)
        others = busy_seconds() - generator_seconds() - upstream.cpu_seconds() - proxy.cpu_seconds()
        cpu, began = proxy.cpu_seconds(), time.monotonic()
        load = drive(proxy.port, chosen.seconds, chosen, setting.folder)
        cpu, elapsed = proxy.cpu_seconds() - cpu, time.monotonic() - began
        others = busy_seconds() - generator_seconds() - upstream.cpu_seconds() - proxy.cpu_seconds() - others
        peak = proxy.peak_kib() / 1024
    return {
        "cpu_us": round(cpu * 1e6 / load.requests, 2), "rps": round(load.requests / load.micros * 1e6), "p50_us": load.p50_us,
        "p99_us": load.p99_us, "errors": load.errors, "requests": load.requests,
        "peak_mib": round(peak, 1), "foreign_pct": round(others / elapsed * 100),
    }


def generator_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def busy_seconds() -> float:
    """CPU time of everything on the machine: user, nice, system, interrupts."""
    user, nice, system, _idle, _wait, hard, soft = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8])
    return (user + nice + system + hard + soft) / TICKS


def print_table(chosen, rows: list[dict]) -> None:
    """Medians. A ratio is the median of the rounds' ratios, because the machine changes between rounds, not within one."""
    kept = [row for row in rows if row["foreign_pct"] <= chosen.max_foreign]
    scenario = SCENARIOS[chosen.scenario]
    tokens = f"{chosen.tokens} tokens" if scenario.rotates else "one token"
    streams = f" of {chosen.streams} streams" if scenario.http2 else ""
    print(f"\n{scenario.about}; {chosen.algorithm} {tokens}, {chosen.connections} connections{streams}, {chosen.rounds} rounds of {chosen.seconds} s; "
          f"{len(rows) - len(kept)} of {len(rows)} rows dropped for foreign load\n")
    print("| peer | CPU µs/request (min-max) | requests/s | p50 µs | p99 µs | errors | peak MiB | rounds | doorward / peer |")
    print("|---|---|---|---|---|---|---|---|---|")
    own = {row["round"]: row["cpu_us"] for row in kept if row["peer"] == "doorward"}
    for peer in chosen.peers:
        mine = [row for row in kept if row["peer"] == peer]
        if not mine:
            print(f"| {peer} | too much foreign load | | | | | | 0 | |")
            continue
        cpu = [row["cpu_us"] for row in mine]
        rps, p50, p99 = (statistics.median(row[column] for row in mine) for column in ("rps", "p50_us", "p99_us"))
        ratios = [own[row["round"]] / row["cpu_us"] for row in mine if row["round"] in own]
        ratio = f"{statistics.median(ratios):.2f}" if ratios else ""
        print(f"| {peer} | {statistics.median(cpu):.1f} ({min(cpu):.1f}-{max(cpu):.1f}) | {rps:.0f} | {p50:.0f} | {p99:.0f} "
              f"| {sum(row['errors'] for row in mine)} | {max(row['peak_mib'] for row in mine):.1f} | {len(mine)} | {ratio} |")


def print_memory(chosen, setting: Setting, connections: int = 1000) -> None:
    token = setting.folder.token(chosen.algorithm)
    request = f"GET /api/v1/res42/items/1 HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    print(f"\n| peer | MiB of PSS, fresh | with {connections} idle connections |\n|---|---|---|")
    for peer in chosen.peers:
        with start(peer, setting) as proxy:
            time.sleep(1)
            fresh, clients = proxy.pss_kib(), []
            for _ in range(connections):
                client = socket.create_connection(("127.0.0.1", proxy.port), 5)
                clients.append(client)
                client.sendall(request)
                answer = client.recv(4096)
                if b" 200 " not in answer[:20]:
                    raise SystemExit(f"{peer} answered {answer[:100]!r}")
            time.sleep(1)
            print(f"| {peer} | {fresh / 1024:.1f} | {proxy.pss_kib() / 1024:.1f} |", flush=True)
            for client in clients:
                client.close()
