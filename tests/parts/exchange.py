"""One request with all that HTTP knows beside head and body (trailers, 100-continue), and what came back, as one JSON object.

exchange.py h1|h2 URL [--ca FILE] [--method METHOD] [--field NAME:VALUE]… [--body TEXT] [--trailer NAME:VALUE]… [--expect]

With --expect the body is sent only after a 100, and never after a final answer.
"""

import argparse
import json
from urllib.parse import urlsplit

import h11
import h2.events

from connection import connect
from http2 import Http2


def pair(text: str) -> tuple[str, str]:
    name, value = text.split(":", 1)
    return name.strip().lower(), value.strip()


def over_h1(chosen, result: dict) -> None:
    url = urlsplit(chosen.url)
    stream = connect(chosen.url, chosen.ca, "h1")
    state = h11.Connection(h11.CLIENT)
    fields = [("host", url.netloc), *chosen.field]
    if chosen.expect:
        fields.append(("expect", "100-continue"))
    if chosen.body is not None:
        fields.append(("transfer-encoding", "chunked"))
    if chosen.trailer:
        fields.append(("trailer", ", ".join(name for name, _ in chosen.trailer)))
    stream.sendall(state.send(h11.Request(method=chosen.method, target=url.path, headers=fields)))

    def send_body() -> None:
        if chosen.body is not None:
            stream.sendall(state.send(h11.Data(data=chosen.body.encode())))
        stream.sendall(state.send(h11.EndOfMessage(headers=chosen.trailer)))
        result["body_sent"] = True

    if not chosen.expect:
        send_body()
    while True:
        event = state.next_event()
        if event is h11.NEED_DATA:
            state.receive_data(stream.recv(65536))
        elif isinstance(event, h11.InformationalResponse):
            result["interim"].append(event.status_code)
            if event.status_code == 100 and chosen.expect and not result["body_sent"]:
                send_body()
        elif isinstance(event, h11.Response):
            result["status"] = event.status_code
            result["fields"] = {name.decode(): value.decode() for name, value in event.headers}
        elif isinstance(event, h11.Data):
            result["body"] += bytes(event.data).decode()
        elif isinstance(event, h11.EndOfMessage):
            result["trailers"] = {name.decode(): value.decode() for name, value in event.headers}
            return
        else:
            raise SystemExit(f"the connection ended: {event}")


def over_h2(chosen, result: dict) -> None:
    connection = Http2(chosen.url, chosen.ca)
    fields = list(chosen.field)
    if chosen.expect:
        fields.append(("expect", "100-continue"))
    if chosen.trailer:
        fields.append(("trailer", ", ".join(name for name, _ in chosen.trailer)))
    stream = connection.begin(chosen.method, fields, end=chosen.body is None and not chosen.trailer)

    def send_body() -> None:
        if chosen.body is not None:
            connection.send(stream, chosen.body.encode(), end=not chosen.trailer)
        if chosen.trailer:
            connection.end_with(stream, chosen.trailer)
        result["body_sent"] = True

    if not chosen.expect:
        send_body()
    while (event := connection.event()) is not None:
        if isinstance(event, h2.events.InformationalResponseReceived):
            status = int(dict(event.headers)[":status"])
            result["interim"].append(status)
            if status == 100 and chosen.expect and not result["body_sent"]:
                send_body()
        elif isinstance(event, h2.events.ResponseReceived):
            result["fields"] = dict(event.headers)
            result["status"] = int(result["fields"].pop(":status"))
        elif isinstance(event, h2.events.DataReceived):
            result["body"] += event.data.decode()
        elif isinstance(event, h2.events.TrailersReceived):
            result["trailers"] = dict(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            return
        elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
            raise SystemExit(f"ended: {event}")
    raise SystemExit("the connection ended")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("protocol", choices=["h1", "h2"])
    parser.add_argument("url")
    parser.add_argument("--ca")
    parser.add_argument("--method", default="GET")
    parser.add_argument("--field", type=pair, action="append", default=[])
    parser.add_argument("--body")
    parser.add_argument("--trailer", type=pair, action="append", default=[])
    parser.add_argument("--expect", action="store_true")
    chosen = parser.parse_args()
    result = {"interim": [], "status": None, "fields": {}, "body": "", "trailers": {}, "body_sent": False}
    {"h1": over_h1, "h2": over_h2}[chosen.protocol](chosen, result)
    print(json.dumps(result))


main()
