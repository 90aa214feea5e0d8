"""See README.md."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time

import fleet
import polling

REPOSITORY = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
PHASES = ["revoke", "redis", "gateway", "override", "million"]
# Stated bounds in seconds (issue 4, THREATS T1).
P99, WORST, BACK, LOAD = 0.050, 2.0, 2.0, 3.0
MIB = 1024 * 1024


class Results:
    """Rows of the table, and what broke a bound."""

    def __init__(self):
        self.broken = []

    def row(self, what, seconds, p99=None, worst=None):
        """Prints a distribution, in milliseconds, and holds it against its bounds."""
        seconds = sorted(seconds)
        if not seconds:
            self.broken.append(f"{what}: nothing was measured")
            return
        at = lambda share: seconds[min(len(seconds) - 1, int(share * len(seconds)))]
        numbers = [at(0.5), at(0.9), at(0.99), seconds[-1]]
        bounds = [f"p99 ≤ {p99 * 1000:g}"] if p99 else []
        bounds += [f"max ≤ {worst * 1000:g}"] if worst else []
        broken = bool(p99 and numbers[2] > p99) or bool(worst and numbers[3] > worst)
        if broken:
            self.broken.append(f"{what}: {', '.join(bounds)} ms")
        cells = "".join(f"{number * 1000:10.2f}" for number in numbers)
        print(f"{what:54}{len(seconds):7}{cells}   {', '.join(bounds)}{'  BROKEN' if broken else ''}", flush=True)

    def fact(self, what, number, unit, bound=None):
        broken = bound is not None and number > bound
        if broken:
            self.broken.append(f"{what}: at most {bound:g} {unit}")
        said = f"   ≤ {bound:g}{'  BROKEN' if broken else ''}" if bound is not None else ""
        print(f"{what:54}{number:14.2f} {unit}{said}", flush=True)

    def must(self, what, fine):
        if not fine:
            self.broken.append(what)
            print(f"BROKEN: {what}", flush=True)


def head(title):
    print(f"\n{title}\n{'':54}{'n':>7}{'p50 ms':>10}{'p90 ms':>10}{'p99 ms':>10}{'max ms':>10}   bound", flush=True)


class Tokens:
    """Tokens of ever new subjects, and the entry that revokes each: by its id, its session, its subject, in turns."""

    def __init__(self):
        self.count = 0
        self.good = fleet.token("good")
        self.revoker = fleet.token("root", roles=["ROLE_REVOKER"])

    def next(self):
        number, kind = self.count, self.count % 3
        self.count += 1
        token = fleet.token(f"u-{number}", f"s-{number}", f"t-{number}")
        return token, [{"jti": f"t-{number}"}, {"session": f"s-{number}"}, {"subject": f"u-{number}"}][kind]


def revoke(set_up, results, arguments):
    """Revocations on the control plane, one after another, with every gateway asked all the time."""
    head(f"{arguments.revocations} revocations on 1 of {arguments.gateways} gateways, by token id, session and subject in turns")
    poller = polling.Poller([gateway.port for gateway in set_up.gateways], set_up.control.admin)
    tokens, after, first, all_of, after_all, call, unharmed = Tokens(), [], [], [], [], [], 0
    for _ in range(arguments.revocations):
        token, entry = tokens.next()
        before = poller.ask_once("/items", token)
        if any(status != 200 for status in before):
            sys.exit(f"a good token was answered {before}")
        began, (answered, status, body), turned, others = poller.until(
            "/items", token, 401, lambda poller: poller.revoke(entry, tokens.revoker)
        )
        results.must(f"POST {entry} answers 200, not {status} {body[:200]}", status == 200)
        results.must(f"no answer but 200 and 401, seen {others}", set(others) <= {200})
        call.append(answered - began)
        after += [max(0.0, at - answered) for at in turned]
        after_all.append(max(0.0, max(turned) - answered))
        first.append(min(turned) - began)
        all_of.append(max(turned) - began)
        unharmed += poller.ask_once("/items", tokens.good).count(200)
    results.row("POST sent → POST answered", call)
    results.row("POST answered → refused, each gateway", after, P99, WORST)
    results.row("POST answered → refused by all", after_all, P99, WORST)
    results.row("POST sent → refused by the first", first)
    results.row("POST sent → refused by all", all_of, P99, WORST)
    asked = arguments.revocations * arguments.gateways
    results.must(f"good tokens are unharmed: {asked - unharmed} of {asked} refused", unharmed == asked)
    poller.close()


def accepted(poller, tokens, results, count):
    """Revokes while nothing can be published; the tokens."""
    out = []
    for _ in range(count):
        token, entry = tokens.next()
        poller.ask_once("/items", token)
        act = lambda poller: poller.revoke(entry, tokens.revoker)
        _, (_, status, body), _, _ = poller.until("/items", token, 401, act, which=[])
        results.must(f"POST {entry} is accepted, not {status} {body[:200]}", status in (200, 202))
        out.append(token)
    return out


def redis(set_up, results, arguments):
    """Redis is killed, revocations are accepted, Redis returns: with its data, without, and emptied while it runs."""
    head(f"{arguments.kills} kills (kill -9) of Redis each way, a revocation during each")
    for way in ("with its data", "without its data"):
        poller = polling.Poller([gateway.port for gateway in set_up.gateways], set_up.control.admin)
        tokens, back = Tokens(), []
        tokens.count = 10_000 if way == "with its data" else 20_000
        for number in range(arguments.kills):
            set_up.redis.kill()
            token = accepted(poller, tokens, results, 1)[0]
            time.sleep(number % 4 * 0.7)
            if way == "without its data":
                set_up.redis.lose()
            set_up.redis.start()
            answers = time.monotonic()
            _, _, turned, others = poller.until("/items", token, 401, lambda _: None)
            back.append(max(turned) - answers)
            results.must(f"no answer but 200 and 401, seen {others}", set(others) <= {200})
            # A heartbeat. Killed before each one for 30 s the fleet is stale, as it should be, and that is another measurement.
            time.sleep(1.5)
        results.row(f"Redis answers again {way} → refused by all", back, worst=BACK)
        poller.close()
    poller = polling.Poller([gateway.port for gateway in set_up.gateways], set_up.control.admin)
    tokens, times = Tokens(), []
    tokens.count = 30_000
    for _ in range(arguments.kills):
        token, entry = tokens.next()
        poller.ask_once("/items", token)
        set_up.redis.flush()
        began, _, turned, _ = poller.until("/items", token, 401, lambda poller: poller.revoke(entry, tokens.revoker))
        times.append(max(turned) - began)
    results.row("FLUSHALL, then POST sent → refused by all", times, worst=WORST)
    poller.close()


def gateway(set_up, results, arguments):
    """A follower is killed, something is revoked, it returns."""
    head(f"{arguments.kills} kills (kill -9) of one gateway of {arguments.gateways}, a revocation during each")
    poller = polling.Poller([gateway.port for gateway in set_up.gateways], set_up.control.admin)
    tokens, ready, refuses = Tokens(), [], []
    tokens.count = 40_000
    for number in range(arguments.kills):
        which = 1 + number % (arguments.gateways - 1)
        victim = set_up.gateways[which]
        others = [other for other in range(arguments.gateways) if other != which]
        victim.kill()
        poller.gateways[which].close()
        token, entry = tokens.next()
        poller.until("/items", token, 401, lambda poller: poller.revoke(entry, tokens.revoker), which=others)
        began = time.monotonic()
        victim.spawn()
        _, _, turned, seen = poller.until("/items", token, 401, lambda _: None, which=[which])
        refuses.append(turned[0] - began)
        results.must(f"nothing revoked is let through by a gateway that starts, seen {seen}", 200 not in seen)
        poller.until("/items", tokens.good, 200, lambda _: None, which=[which])
        ready.append(time.monotonic() - began)
    results.row("exec → refused as revoked", refuses, worst=BACK)
    results.row("exec → lets good tokens through", ready, worst=BACK)
    poller.close()


def override(set_up, results, arguments):
    """`doorward override` on the control plane's machine, giving and taking, with tokens that are out."""
    head(f"{arguments.overrides} changes of roles by `doorward override` on 1 of {arguments.gateways}, half of them taking, half giving")
    poller = polling.Poller([gateway.port for gateway in set_up.gateways], set_up.control.admin)
    ended, all_of = [], []
    for number in range(arguments.overrides):
        subject = f"o-{number}"
        token = fleet.token(subject)
        taking = number % 2 == 0
        # A viewer becomes an editor: what it may is another thing altogether.
        target, wanted = ("/items", 403) if taking else ("/edits", 200)
        before = poller.ask_once(target, token)
        if any(status != (200 if taking else 403) for status in before):
            sys.exit(f"{target} was answered {before}")
        processes = []

        def act(_):
            command = set_up.control.command("override", "--subject", subject, "--role", "ROLE_EDITOR")
            process = subprocess.Popen(
                command, cwd=set_up.control.folder, env=set_up.control.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
            processes.append(process)
            return os.pidfd_open(process.pid)

        began, (done, _, _), turned, _ = poller.until(target, token, wanted, act)
        results.must("`doorward override` succeeds", processes[0].wait() == 0)
        ended.append(max(0.0, max(turned) - done))
        all_of.append(max(turned) - began)
        other = poller.ask_once("/edits" if taking else "/items", token)
        results.must(f"all are judged by the new roles alone: {other}", all(status == (200 if taking else 403) for status in other))
    results.row("command ended → judged anew by all", ended, P99, WORST)
    results.row("command begun → judged anew by all", all_of, worst=WORST)
    poller.close()


def million(binary, folder, results, arguments):
    """Starts of a control plane with a million live revocations, and of a gateway that follows it."""
    head(f"{arguments.entries} live revocations")
    upstream = fleet.Upstream()
    redis_server = fleet.Redis(os.path.join(folder, "redis-of-many"))
    url = f"redis://127.0.0.1:{redis_server.port}"
    gateways = []
    try:
        empty = fleet.Gateway(binary, os.path.join(folder, "empty"), url, upstream.port)
        empty.start()
        time.sleep(1)
        idle = empty.memory()
        empty.kill()
        redis_server.flush()
        control = fleet.Gateway(binary, os.path.join(folder, "many"), url, upstream.port)
        gateways.append(control)
        # The key of the first start signs what is made.
        control.start()
        control.kill()
        shutil.rmtree(os.path.join(control.folder, "data", "revocations"), ignore_errors=True)
        redis_server.flush()
        began = time.monotonic()
        subprocess.run(
            [arguments.generator, os.path.join(control.folder, "data"), str(arguments.entries)], check=True, cwd=control.folder
        )
        print(f"(made in {time.monotonic() - began:.0f} s)", flush=True)
        results.row("control plane, Redis empty: exec → ready", [control.start()])
        again = []
        for _ in range(arguments.starts):
            control.kill()
            again.append(control.start())
        results.row("control plane: exec → ready", again, worst=LOAD)
        follower = fleet.Gateway(binary, os.path.join(folder, "follower"), url, upstream.port, control.public_key())
        gateways.append(follower)
        first, again = [], []
        for _ in range(arguments.starts):
            follower.kill()
            shutil.rmtree(os.path.join(follower.folder, "data"), ignore_errors=True)
            first.append(follower.start())
            time.sleep(3)
            follower.kill()
            again.append(follower.start())
        results.row("gateway, first start: exec → ready", first, worst=LOAD)
        results.row("gateway, started again: exec → ready", again, worst=LOAD)
        time.sleep(3)
        held = [line for line in follower.admin_get("/metrics")[1].splitlines() if line.startswith("doorward_revocations")]
        print("\n".join(f"gateway: {line}" for line in held))
        results.fact("idle, nothing revoked: resident", idle / MIB, "MiB")
        results.fact("control plane: resident", control.memory() / MIB, "MiB")
        results.fact("gateway: resident", follower.memory() / MIB, "MiB")
        poller = polling.Poller([gateway.port for gateway in gateways], control.admin)
        tokens, times = Tokens(), []
        tokens.count = 50_000
        for _ in range(100):
            token, entry = tokens.next()
            poller.ask_once("/items", token)
            began, _, turned, _ = poller.until("/items", token, 401, lambda poller: poller.revoke(entry, tokens.revoker))
            times.append(max(turned) - began)
        results.row("one more: POST sent → refused by both", times, P99, WORST)
        poller.close()
    finally:
        for each in gateways:
            each.kill()
        redis_server.kill()
        upstream.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phases", nargs="*", metavar="PHASE", help=f"of {', '.join(PHASES)}; default: all")
    parser.add_argument("--gateways", type=int, default=4)
    parser.add_argument("--revocations", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--overrides", type=int, default=200)
    parser.add_argument("--entries", type=int, default=1_000_000, help="live revocations of the phase million")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--generator", help="the program that makes them; default: built by cargo (tests/bench/revoke/many.rs)")
    parser.add_argument("--keep", action="store_true", help="leave the folder with all logs")
    arguments = parser.parse_args()
    phases = arguments.phases or PHASES
    if unknown := set(phases) - set(PHASES):
        parser.error(f"no such phase: {', '.join(unknown)}")
    binary = os.environ.get("DOORWARD") or os.path.join(REPOSITORY, "target", "dist", "doorward")
    binary = os.path.abspath(binary)
    if not os.path.exists(binary):
        sys.exit(f"{binary} is not there: cargo build --profile dist, or DOORWARD=…")
    if "million" in phases and not arguments.generator:
        subprocess.run(["cargo", "build", "--release", "--locked", "--example", "many"], cwd=REPOSITORY, check=True)
        arguments.generator = os.path.join(REPOSITORY, "target", "release", "examples", "many")
    results = Results()
    folder = tempfile.mkdtemp(prefix="doorward-revoke-")
    print(f"{subprocess.run([binary, '--version'], capture_output=True, text=True).stdout.strip()}, {os.cpu_count()} cores", end="")
    print(f", load {os.getloadavg()[0]:.1f} before")
    try:
        if set(phases) - {"million"}:
            set_up = fleet.Fleet(binary, folder, arguments.gateways)
            try:
                for phase in PHASES[:-1]:
                    if phase in phases:
                        globals()[phase](set_up, results, arguments)
            finally:
                set_up.stop()
        if "million" in phases:
            million(binary, folder, results, arguments)
    finally:
        if arguments.keep:
            print(f"logs in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    for broken in results.broken[:20]:
        print(f"BROKEN: {broken}", file=sys.stderr)
    sys.exit(1 if results.broken else 0)


if __name__ == "__main__":
    main()
