"""One connection to doorward over plain TCP or TLS, for the clients beside this file."""

import socket
import ssl
from urllib.parse import urlsplit

LIMIT = 60  # seconds without a byte


def connect(url: str, ca: str | None, protocol: str) -> socket.socket:
    """A connected socket that speaks `protocol` ("h1" or "h2"), agreed upon by ALPN where there is TLS."""
    parts = urlsplit(url)
    stream = socket.create_connection((parts.hostname, parts.port), LIMIT)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if parts.scheme in ("http", "ws"):
        return stream
    context = ssl.create_default_context(cafile=ca)
    name = {"h1": "http/1.1", "h2": "h2"}[protocol]
    context.set_alpn_protocols([name])
    stream = context.wrap_socket(stream, server_hostname=parts.hostname)
    if stream.selected_alpn_protocol() != name:
        raise SystemExit(f"agreed upon {stream.selected_alpn_protocol()}, not {name}")
    return stream
