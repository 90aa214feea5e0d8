"""An HTTP/2 client connection by the library h2: one stream at a time, flow control kept."""

from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events

from connection import connect


class Http2:
    def __init__(self, url: str, ca: str | None):
        self.url = urlsplit(url)
        self.socket = connect(url, ca, "h2")
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.state = h2.connection.H2Connection(config)
        self.state.initiate_connection()
        self.arrived: list[h2.events.Event] = []  # from the wire
        self.waiting: list[h2.events.Event] = []  # set aside while sending
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.state.data_to_send())

    def begin(self, method: str, fields: list[tuple[str, str]], end: bool) -> int:
        """Opens a stream; `fields` may hold further pseudo-headers in front."""
        target = self.url.path + (f"?{self.url.query}" if self.url.query else "")
        scheme = {"ws": "http", "wss": "https"}.get(self.url.scheme, self.url.scheme)
        pseudo = [(":method", method), (":scheme", scheme), (":authority", self.url.netloc), (":path", target)]
        stream = self.state.get_next_available_stream_id()
        self.state.send_headers(stream, pseudo + fields, end_stream=end)
        self.flush()
        return stream

    def send(self, stream: int, data: bytes, end: bool = False) -> None:
        """Sends data as far as the windows allow, and waits for them to open."""
        while data:
            room = min(self.state.local_flow_control_window(stream), self.state.max_outbound_frame_size)
            if room == 0:
                self.waiting.append(self.receive())
                continue
            self.state.send_data(stream, data[:room])
            data = data[room:]
            self.flush()
        if end:
            self.state.end_stream(stream)
            self.flush()

    def end_with(self, stream: int, trailers: list[tuple[str, str]]) -> None:
        self.state.send_headers(stream, trailers, end_stream=True)
        self.flush()

    def event(self) -> h2.events.Event | None:
        """The next event of interest, or None at the end of the connection."""
        if self.waiting:
            return self.waiting.pop(0)
        return self.receive()

    def receive(self) -> h2.events.Event | None:
        while not self.arrived:
            data = self.socket.recv(65536)
            if not data:
                return None
            for event in self.state.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    self.state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                self.arrived.append(event)
            self.flush()
        return self.arrived.pop(0)
