"""A gRPC service with one method of each kind, by grpcio. It prints a line with its port, and one for each call that reaches it.

Messages are plain bytes, so that nothing needs to be generated. The user that doorward names is sent back as metadata.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import ends_with_parent
import grpc


def say(text: str) -> None:
    print(text, flush=True)


def greet(context: grpc.ServicerContext, method: str) -> None:
    metadata = dict(context.invocation_metadata())
    say(f"call {method} user={metadata.get('x-user-id')}")
    context.send_initial_metadata([("x-seen-user", metadata.get("x-user-id", ""))])
    context.set_trailing_metadata([("x-checked", metadata.get("x-check", ""))])


def unary(request: bytes, context) -> bytes:
    greet(context, "Unary")
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "asked to fail")
    return b"echo " + request


def client_stream(requests, context) -> bytes:
    greet(context, "ClientStream")
    return b"|".join(requests)


def server_stream(request: bytes, context):
    greet(context, "ServerStream")
    for number in range(int(request)):
        yield b"%d" % number


def bidirectional(requests, context):
    greet(context, "Bidirectional")
    for request in requests:
        yield b"echo " + request


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return {
            "/parts.Echo/Unary": grpc.unary_unary_rpc_method_handler(unary),
            "/parts.Echo/ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
            "/parts.Echo/ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
            "/parts.Echo/Bidirectional": grpc.stream_stream_rpc_method_handler(bidirectional),
        }.get(details.method)


def main() -> None:
    ends_with_parent.watch()
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([Echo()])
    if len(sys.argv) == 3:
        key, chain = (open(path, "rb").read() for path in sys.argv[1:])
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    say(f"port {port}")
    server.wait_for_termination()


main()
