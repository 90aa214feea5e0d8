"""Calls methods of grpc_service.py through doorward and prints what came as one JSON object.

grpc_client.py HOST:PORT [--ca FILE] [--token TOKEN] METHOD MESSAGE…
"""

import argparse
import json
import threading

import grpc

LIMIT = 60


def call(channel, method: str, messages: list[bytes], metadata, result: dict):
    """Makes the call, notes each message in `result` as it comes, and returns the call."""
    path = f"/parts.Echo/{method}"
    if method == "Unary":
        answer, done = channel.unary_unary(path).with_call(messages[0], timeout=LIMIT, metadata=metadata)
        result["messages"].append(answer.decode())
        return done
    if method == "ClientStream":
        answer, done = channel.stream_unary(path).with_call(iter(messages), timeout=LIMIT, metadata=metadata)
        result["messages"].append(answer.decode())
        return done
    if method == "ServerStream":
        done = channel.unary_stream(path)(messages[0], timeout=LIMIT, metadata=metadata)
        result["messages"] += [answer.decode() for answer in done]
        return done

    # Each message is sent only after the answer to the one before: this works only if nothing is held back on the way.
    def in_turn():
        for number, message in enumerate(messages):
            while len(result["messages"]) < number:
                answered.wait()
                answered.clear()
            yield message

    answered = threading.Event()
    done = channel.stream_stream(path)(in_turn(), timeout=LIMIT, metadata=metadata)
    for answer in done:
        result["messages"].append(answer.decode())
        answered.set()
    return done


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--ca")
    parser.add_argument("--token")
    parser.add_argument("method")
    parser.add_argument("messages", nargs="+")
    chosen = parser.parse_args()
    options = [("grpc.enable_http_proxy", 0)]
    if chosen.ca:
        trusted = grpc.ssl_channel_credentials(open(chosen.ca, "rb").read())
        channel = grpc.secure_channel(chosen.target, trusted, options)
    else:
        channel = grpc.insecure_channel(chosen.target, options)
    metadata = [("x-check", "trailing")]
    if chosen.token:
        metadata.append(("authorization", f"Bearer {chosen.token}"))
    result = {"code": "OK", "details": "", "messages": []}
    try:
        done = call(channel, chosen.method, [message.encode() for message in chosen.messages], metadata, result)
        result["initial"] = dict(done.initial_metadata())
        result["trailing"] = {key: value for key, value in done.trailing_metadata() if isinstance(value, str)}
    except grpc.RpcError as error:
        result["code"], result["details"] = error.code().name, error.details()
    print(json.dumps(result))


main()
