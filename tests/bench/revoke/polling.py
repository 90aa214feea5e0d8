"""Asks many gateways at once, from one thread, and notes when each begins to answer otherwise."""

import json
import selectors
import socket
import time

# Between an answer and the next question on the same connection, in seconds.
GAP = 0.0005


class Connection:
    """A connection that is kept, with one question at a time."""

    def __init__(self, selector, port):
        self.selector, self.port = selector, port
        self.socket, self.buffer, self.busy, self.asked = None, b"", False, 0.0

    def ask(self, request):
        """Sends a request; whether that was possible."""
        try:
            if self.socket is None:
                self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=5)
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.selector.register(self.socket, selectors.EVENT_READ, self)
            self.asked, self.buffer, self.busy = time.monotonic(), b"", True
            self.socket.sendall(request)
            return True
        except OSError:
            self.close()
            return False

    def read(self):
        """Status and body of the answer, None while it is not whole, (0, b"") if there is none."""
        try:
            piece = self.socket.recv(65536)
        except OSError:
            piece = b""
        if not piece:
            self.close()
            return 0, b""
        self.buffer += piece
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return None
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        if len(body) < length:
            return None
        self.busy = False
        return int(head[9:12]), body

    def close(self):
        if self.socket is not None:
            self.selector.unregister(self.socket)
            self.socket.close()
        self.socket, self.busy = None, False


class Poller:
    def __init__(self, ports, admin):
        """`ports`: of the gateways. `admin`: of the one that revokes."""
        self.selector = selectors.DefaultSelector()
        self.gateways = [Connection(self.selector, port) for port in ports]
        self.admin = Connection(self.selector, admin)

    def ask_once(self, target, token, which=None):
        """The statuses that the gateways answer, once."""
        statuses = {}
        chosen = [self.gateways[number] for number in which] if which is not None else self.gateways
        waiting = [connection for connection in chosen if connection.ask(question(target, token))]
        while waiting:
            for key, _ in self.selector.select(20) or [(None, None)]:
                if key is None:
                    raise TimeoutError("a gateway did not answer in 20 s")
                answer = key.data.read() if isinstance(key.data, Connection) else None
                if answer is not None and key.data in waiting:
                    statuses[key.data] = answer[0]
                    waiting.remove(key.data)
        return [statuses.get(connection, 0) for connection in chosen]

    def until(self, target, token, wanted, act, limit=30, which=None):
        """Asks every gateway again and again until it has answered `wanted`.

        `act(self)` starts what brings that about, and returns a file object or connection; when that can be read, it has been
        answered. Returns (when it was begun, when it was answered, its answer, [when each gateway answered so]), in seconds of
        the monotonic clock, and all other statuses seen.
        """
        request = question(target, token)
        chosen = [self.gateways[number] for number in which] if which is not None else self.gateways
        turned, others = {}, {}
        began = time.monotonic()
        awaited = act(self)
        answered = None if awaited is not None else (began, 0, b"")
        if awaited is not None and awaited is not self.admin:
            self.selector.register(awaited, selectors.EVENT_READ, awaited)
        due = {connection: 0.0 for connection in chosen}
        while len(turned) < len(chosen) or answered is None:
            now = time.monotonic()
            if now - began > limit:
                raise TimeoutError(f"after {limit} s {len(turned)} of {len(chosen)} gateways answered {wanted}, others {others}")
            for connection in chosen:
                if connection not in turned and not connection.busy and due[connection] <= now:
                    if not connection.ask(request):
                        others[0] = others.get(0, 0) + 1
                        due[connection] = now + 0.005
            for key, _ in self.selector.select(GAP):
                if key.data is awaited and awaited is not self.admin:
                    answered = (time.monotonic(), 0, b"")
                    self.selector.unregister(awaited)
                    continue
                connection = key.data
                answer = connection.read()
                now = time.monotonic()
                if answer is None:
                    continue
                if connection is self.admin:
                    answered = (now, *answer)
                elif answer[0] == wanted:
                    turned[connection] = now
                else:
                    others[answer[0]] = others.get(answer[0], 0) + 1
                    due[connection] = now + GAP
        return began, answered, [turned[connection] for connection in chosen], others

    def revoke(self, entry, token):
        """Begins a call that revokes."""
        body = json.dumps(entry)
        self.admin.ask(
            f"POST /api/revocations HTTP/1.1\r\nHost: 127.0.0.1:{self.admin.port}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        return self.admin

    def close(self):
        for connection in [*self.gateways, self.admin]:
            connection.close()


def question(target, token):
    return f"GET {target} HTTP/1.1\r\nHost: bench.test\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
