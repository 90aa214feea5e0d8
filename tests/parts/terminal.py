"""Uses a terminal of Jupyter Server through doorward over a WebSocket, and prints what it saw as one JSON object.

terminal.py h1|h2 URL [--ca FILE] [--token TOKEN] [--hold]

URL is that of the WebSocket. The terminal is asked for a sum and for many lines; then it is closed. With --hold the client
says `open` once it has a prompt, stays until doorward closes, and tells the code and reason of the Close.
"""

import argparse
import contextlib
import json
import ssl

import h2.events
import websockets.exceptions
import websockets.sync.client
import wsproto.events
from wsproto.connection import Connection, ConnectionType

from connection import LIMIT
from http2 import Http2


class Refused(Exception):
    def __init__(self, status: int, fields: dict):
        self.status, self.fields = status, fields


class Closed(Exception):
    def __init__(self, code: int, reason: str):
        self.code, self.reason = code, reason


class OverH1:
    """The library websockets: an upgrade of HTTP/1.1."""

    def __init__(self, chosen):
        trusted = ssl.create_default_context(cafile=chosen.ca) if chosen.ca else None
        fields = {"Authorization": f"Bearer {chosen.token}"} if chosen.token else {}
        try:
            self.socket = contextlib.ExitStack().enter_context(websockets.sync.client.connect(
                chosen.url, ssl=trusted, additional_headers=fields, open_timeout=LIMIT, proxy=None, ping_interval=None))
        except websockets.exceptions.InvalidStatus as refused:
            response = refused.response
            raise Refused(response.status_code, {name.lower(): value for name, value in response.headers.raw_items()}) from None

    def send(self, text: str) -> None:
        self.socket.send(text)

    def receive(self) -> str:
        try:
            return self.socket.recv(timeout=LIMIT)
        except websockets.exceptions.ConnectionClosed as closed:
            received = closed.rcvd
            raise Closed(received.code if received else 1006, received.reason if received else "") from None

    def ping(self) -> None:
        if not self.socket.ping(b"are you there").wait(LIMIT):
            raise SystemExit("no pong")

    def close(self) -> int:
        self.socket.close(1000, "done")
        return self.socket.close_code


class OverH2:
    """Extended CONNECT (RFC 8441): wsproto's frames in a stream of h2."""

    def __init__(self, chosen):
        self.connection = Http2(chosen.url, chosen.ca)
        # The server's settings say whether it knows extended CONNECT, so they are waited for.
        while not isinstance(event := self.connection.event(), h2.events.RemoteSettingsChanged):
            if event is None:
                raise SystemExit("the connection ended before its settings")
        if self.connection.state.remote_settings.enable_connect_protocol != 1:
            raise SystemExit("extended CONNECT is not offered")
        fields = [(":protocol", "websocket"), ("sec-websocket-version", "13")]
        if chosen.token:
            fields.append(("authorization", f"Bearer {chosen.token}"))
        self.stream = self.connection.begin("CONNECT", fields, end=False)
        self.frames = Connection(ConnectionType.CLIENT)
        self.texts: list[str] = []
        self.part = ""  # of a message in several frames
        self.pongs = 0
        self.closed: Closed | None = None
        head = self.until(lambda event: isinstance(event, h2.events.ResponseReceived))
        answer = dict(head.headers)
        if answer[":status"] != "200":
            raise Refused(int(answer[":status"]), answer)

    def until(self, wanted):
        while (event := self.connection.event()) is not None:
            if wanted(event):
                return event
            if isinstance(event, h2.events.DataReceived):
                self.take(event.data)
                return None
            if isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                raise SystemExit(f"ended: {event}")
            if isinstance(event, h2.events.StreamEnded):
                raise self.closed or Closed(1006, "")
        raise SystemExit("the connection ended")

    def take(self, data: bytes) -> None:
        self.frames.receive_data(data)
        for event in self.frames.events():
            if isinstance(event, wsproto.events.TextMessage):
                self.part += event.data
                if event.message_finished:
                    self.texts.append(self.part)
                    self.part = ""
            elif isinstance(event, wsproto.events.Ping):
                self.send_event(event.response())
            elif isinstance(event, wsproto.events.Pong):
                self.pongs += 1
            elif isinstance(event, wsproto.events.CloseConnection):
                self.closed = Closed(event.code, event.reason or "")

    def send_event(self, event) -> None:
        self.connection.send(self.stream, self.frames.send(event))

    def send(self, text: str) -> None:
        self.send_event(wsproto.events.TextMessage(data=text))

    def receive(self) -> str:
        while not self.texts:
            if self.closed:
                raise self.closed
            self.until(lambda event: False)
        return self.texts.pop(0)

    def ping(self) -> None:
        self.send_event(wsproto.events.Ping(payload=b"are you there"))
        while self.pongs == 0:
            self.until(lambda event: False)

    def close(self) -> int:
        self.send_event(wsproto.events.CloseConnection(code=1000, reason="done"))
        while self.closed is None:
            self.until(lambda event: False)
        return self.closed.code


def read_until(socket, wanted: str) -> str:
    """What the terminal writes until `wanted` stands in it."""
    seen = ""
    while wanted not in seen:
        kind, *rest = json.loads(socket.receive())
        if kind == "stdout":
            seen += rest[0]
    return seen


def use(socket, hold: bool, result: dict) -> None:
    kind = json.loads(socket.receive())[0]
    if kind != "setup":
        raise SystemExit(f"a terminal begins with setup, not {kind}")
    socket.send(json.dumps(["stdin", "echo sum=$((6 * 7))\r"]))
    read_until(socket, "sum=42")
    result["sum"] = True
    if hold:
        print("open", flush=True)
        while True:
            socket.receive()
    socket.ping()
    socket.send(json.dumps(["stdin", "seq -s, 1 20000; echo that was $((20 * 1000))\r"]))
    seen = read_until(socket, "that was 20000")
    result["long"] = "".join(str(number) + "," for number in range(1, 20000)) in seen.replace("\r", "").replace("\n", "")
    result["close"] = socket.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("protocol", choices=["h1", "h2"])
    parser.add_argument("url")
    parser.add_argument("--ca")
    parser.add_argument("--token")
    parser.add_argument("--hold", action="store_true")
    chosen = parser.parse_args()
    result = {"status": 101, "fields": {}, "sum": False, "long": False, "close": None, "reason": ""}
    try:
        use({"h1": OverH1, "h2": OverH2}[chosen.protocol](chosen), chosen.hold, result)
    except Refused as refused:
        result["status"], result["fields"] = refused.status, refused.fields
    except Closed as closed:
        result["close"], result["reason"] = closed.code, closed.reason
    print(json.dumps(result))


main()
