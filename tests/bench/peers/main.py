"""The command line: lay out the working folder, see that each peer does the job, measure, print the table."""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import measure
import validate
from folder import ALGORITHMS, Folder
from processes import Upstream
from proxies import PEERS, Setting
from scenarios import SCENARIOS

REPOSITORY = Path(__file__).resolve().parents[3]
DEFAULT_PEERS = ["nginx-pass", "haproxy-jwt", "envoy-jwt", "nginx-luacache", "doorward"]
# Envoy is not set up for TLS and HTTP/2 here, nor is nginx with Lua measured with them.
OTHER_PEERS = ["nginx-pass", "haproxy-jwt", "doorward"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/peers/run", description=__doc__)
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"any of {' '.join(PEERS)} (default: {' '.join(DEFAULT_PEERS)}; with another scenario than h1: {' '.join(OTHER_PEERS)})")
    parser.add_argument("--scenario", choices=SCENARIOS, default="h1", help="; ".join(f"{name}: {scenario.about}" for name, scenario in SCENARIOS.items()))
    parser.add_argument("--rounds", type=int, default=5, help="rounds; peers take turns within each (default: 5)")
    parser.add_argument("--seconds", type=int, default=3, help="seconds of load for each peer and round (default: 3)")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="rs", help="RS256, ES256 or HS256 (default: rs)")
    parser.add_argument("--tokens", type=int, default=1000, help="tokens in rotation: 1, 1000 or 50000 (default: 1000)")
    parser.add_argument("--connections", type=int, help="connections of the load generator (default: 32; 8 where bodies are large)")
    parser.add_argument("--streams", type=int, default=1, help="requests at a time on a connection of HTTP/2 (default: 1)")
    parser.add_argument("--proxy-core", type=int, default=0, help="the core of the proxy (default: 0)")
    parser.add_argument("--load-core", type=int, default=1, help="the core of wrk and of the upstream (default: 1)")
    parser.add_argument("--max-foreign", type=float, default=12, help="drop rows with more foreign CPU than this per cent of a core (default: 12)")
    parser.add_argument("--validate-only", action="store_true", help="see that each peer does the job, and stop")
    parser.add_argument("--no-validate", action="store_true", help="measure at once")
    parser.add_argument("--memory", action="store_true", help="measure memory (PSS, fresh and with 1,000 idle connections) too")
    chosen = parser.parse_args()
    unknown = [peer for peer in chosen.peers if peer not in PEERS]
    if unknown:
        parser.error(f"no peer {', '.join(unknown)}; there are {', '.join(PEERS)}")
    chosen.peers = chosen.peers or (DEFAULT_PEERS if chosen.scenario == "h1" else OTHER_PEERS)
    chosen.connections = chosen.connections or SCENARIOS[chosen.scenario].connections
    if chosen.scenario != "h1" and any(peer.startswith("envoy") for peer in chosen.peers):
        parser.error("Envoy is measured in the scenario h1 only")
    if chosen.memory and chosen.scenario != "h1":
        parser.error("memory is measured in the scenario h1 only")
    return chosen


def doorward_binary() -> str:
    """The program under test: $DOORWARD, or a build of this repository as it ships."""
    if "DOORWARD" in os.environ:
        named = shutil.which(os.environ["DOORWARD"])
        return named or sys.exit(f"$DOORWARD names no program: {os.environ['DOORWARD']}")
    subprocess.run(["cargo", "build", "--profile", "dist", "--bin", "doorward"], cwd=REPOSITORY, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    return str(REPOSITORY / target / "dist" / "doorward")


def main() -> int:
    chosen = arguments()
    folder = Folder(Path(os.environ["PEERS_DIR"]))
    binary = doorward_binary() if "doorward" in chosen.peers else None
    folder.tokens(chosen.algorithm, chosen.tokens)
    with Upstream(folder, chosen.load_core) as upstream:
        scenario = SCENARIOS[chosen.scenario]
        setting = Setting(folder, chosen.algorithm, upstream.port, binary, scenario.tls, scenario.http2)
        if not chosen.no_validate:
            failed = [peer for peer in chosen.peers if not validate.check(peer, setting)]
            if failed:
                print(f"not measured, because these do not do the job: {', '.join(failed)}", file=sys.stderr)
                return 1
        if chosen.validate_only:
            return 0
        rows = measure.rounds(chosen, setting, upstream)
        measure.print_table(chosen, rows)
        if chosen.memory:
            measure.print_memory(chosen, setting)
    return 0


if __name__ == "__main__":
    sys.exit(main())
