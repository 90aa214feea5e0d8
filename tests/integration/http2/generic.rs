//! What every server must accept.

use super::client::*;
use super::{Case, Client, Verdict, case, hpack};

pub(super) const CASES: &[Case] = &[
    case("generic/1/1", "the client's preface", |client| {
        client.raw(PREFACE);
        client.send_settings(&[(INITIAL_WINDOW_SIZE, DEFAULT_WINDOW)]);
        match client.next_frame()? {
            frame if frame.kind == SETTINGS && frame.flags & ACK == 0 => Ok(()),
            frame => Err(format!("SETTINGS are not the first frame: {frame:?}")),
        }
    }),
    case("generic/2/1", "PRIORITY on an idle stream", |client| {
        client.handshake()?;
        client.priority(1, 0, 255);
        client.ping(0, [0; 8]);
        client.expect_ping([0; 8])
    }),
    case("generic/2/2", "WINDOW_UPDATE on a half-closed (remote) stream", |client| {
        client.handshake()?;
        client.send_settings(&[(INITIAL_WINDOW_SIZE, 0)]);
        client.send_get(1);
        client.window_update(1, 1);
        client.expect(DATA).map(drop)
    }),
    case("generic/2/3", "PRIORITY on a half-closed (remote) stream", |client| {
        client.handshake()?;
        client.send_settings(&[(INITIAL_WINDOW_SIZE, 0)]);
        client.send_get(1);
        client.priority(1, 0, 255);
        client.window_update(1, 1);
        client.expect(DATA).map(drop)
    }),
    case("generic/2/4", "RST_STREAM on a half-closed (remote) stream", |client| {
        client.handshake()?;
        client.send_get(1);
        client.reset(1, CANCEL);
        client.ping(0, [0; 8]);
        client.expect_ping_or_closed([0; 8])
    }),
    case("generic/2/5", "PRIORITY on a closed stream", |client| {
        client.handshake()?;
        client.send_get(1);
        client.expect_stream_end()?;
        client.priority(1, 0, 255);
        client.ping(0, [0; 8]);
        client.expect_ping([0; 8])
    }),
    case("generic/3.1/1", "one DATA frame", |client| {
        client.handshake()?;
        client.send_post();
        client.data(1, END_STREAM, b"test");
        client.expect_headers(1)
    }),
    case("generic/3.1/2", "two DATA frames", |client| {
        client.handshake()?;
        client.send_post();
        client.data(1, 0, b"test");
        client.data(1, END_STREAM, b"test");
        client.expect_headers(1)
    }),
    case("generic/3.1/3", "DATA with padding", |client| {
        client.handshake()?;
        client.send_post();
        client.data(1, END_STREAM | PADDED, b"\x06test\0\0\0\0\0\0");
        client.expect_headers(1)
    }),
    case("generic/3.2/1", "HEADERS", |client| {
        client.handshake()?;
        client.send_get(1);
        client.expect_headers(1)
    }),
    case("generic/3.2/2", "HEADERS with padding", |client| {
        client.handshake()?;
        let payload = [&[8], &client.get_block()[..], &[0; 8]].concat();
        client.frame(HEADERS, WHOLE | PADDED, 1, &payload);
        client.expect_headers(1)
    }),
    case("generic/3.2/3", "HEADERS with priority", |client| {
        client.handshake()?;
        let payload = [priority(0, 255), client.get_block()].concat();
        client.frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &payload);
        client.expect_headers(1)
    }),
    case("generic/3.3/1", "PRIORITY with weight 1", |client| after_priority(client, 1, 0, 0)),
    case("generic/3.3/2", "PRIORITY with weight 256", |client| after_priority(client, 1, 0, 255)),
    case("generic/3.3/3", "PRIORITY with a dependency", |client| after_priority(client, 3, 1, 0)),
    case("generic/3.3/4", "PRIORITY with an exclusive dependency", |client| after_priority(client, 1, 1 << 31, 0)),
    case("generic/3.3/5", "PRIORITY of an idle stream, then HEADERS of a lower one", |client| {
        after_priority(client, 3, 0, 255)
    }),
    case("generic/3.4/1", "RST_STREAM", |client| {
        client.handshake()?;
        client.headers(1, END_HEADERS, &client.get());
        client.reset(1, CANCEL);
        client.ping(0, [0; 8]);
        client.expect_ping_or_closed([0; 8])
    }),
    case("generic/3.5/1", "SETTINGS", |client| {
        client.handshake()?;
        client.send_settings(&[
            (HEADER_TABLE_SIZE, 4_096),
            (ENABLE_PUSH, 1),
            (MAX_CONCURRENT_STREAMS, 100),
            (INITIAL_WINDOW_SIZE, 65_535),
            (MAX_FRAME_SIZE, 16_384),
            (MAX_HEADER_LIST_SIZE, 100),
        ]);
        client.expect_settings_ack()
    }),
    case("generic/3.7/1", "PING", |client| {
        client.handshake()?;
        client.ping(0, *b"h2spec\0\0");
        client.expect_ping(*b"h2spec\0\0")
    }),
    case("generic/3.8/1", "GOAWAY", |client| {
        client.handshake()?;
        client.goaway(0, b"h2spec");
        client.expect_closed()
    }),
    case("generic/3.9/1", "WINDOW_UPDATE of the connection", |client| {
        client.handshake()?;
        client.window_update(0, 1);
        client.ping(0, [0; 8]);
        client.expect(PING).map(drop)
    }),
    case("generic/3.9/2", "WINDOW_UPDATE of a stream", |client| {
        client.handshake()?;
        client.send_get(1);
        client.window_update(1, 1);
        client.expect_headers(1)
    }),
    case("generic/3.10/1", "a CONTINUATION", |client| {
        client.handshake()?;
        let block = client.get_block();
        client.frame(HEADERS, END_STREAM, 1, &block[..5]);
        client.frame(CONTINUATION, END_HEADERS, 1, &block[5..]);
        client.expect_headers(1)
    }),
    case("generic/3.10/2", "two CONTINUATIONs", |client| {
        client.handshake()?;
        let block = client.get_block();
        client.frame(HEADERS, END_STREAM, 1, &block[..5]);
        client.frame(CONTINUATION, 0, 1, &block[5..10]);
        client.frame(CONTINUATION, END_HEADERS, 1, &block[10..]);
        client.expect_headers(1)
    }),
    case("generic/4/1", "GET", |client| {
        client.handshake()?;
        client.send_get(1);
        client.expect_headers(1)
    }),
    case("generic/4/2", "HEAD", |client| {
        client.handshake()?;
        client.headers(1, WHOLE, &client.request("HEAD"));
        client.expect_headers(1)
    }),
    case("generic/4/3", "POST", |client| {
        client.handshake()?;
        client.send_post();
        client.data(1, END_STREAM, b"test");
        client.expect_headers(1)
    }),
    case("generic/4/4", "POST with trailers", |client| {
        client.handshake()?;
        client.headers(1, END_HEADERS, &with(client.request("POST"), "trailer", "x-test"));
        client.data(1, 0, b"test");
        client.headers(1, WHOLE, &with(Vec::new(), "x-test", "ok"));
        client.expect_headers(1)
    }),
    case("generic/5/1", "an indexed field", |client| accepts(client, &[0xba])),
    case("generic/5/2", "a literal with indexing, Huffman", |client| literal(client, 0x40, &USER_AGENT_HUFFMAN)),
    case("generic/5/3", "a literal with indexing", |client| literal(client, 0x40, USER_AGENT)),
    case("generic/5/4", "a literal with indexing, new name", |client| literal(client, 0x40, X_TEST)),
    case("generic/5/5", "a literal with indexing, new name, Huffman", |client| literal(client, 0x40, &X_TEST_HUFFMAN)),
    case("generic/5/6", "a literal without indexing", |client| literal(client, 0, USER_AGENT)),
    case("generic/5/7", "a literal without indexing, Huffman", |client| literal(client, 0, &USER_AGENT_HUFFMAN)),
    case("generic/5/8", "a literal without indexing, new name", |client| literal(client, 0, X_TEST)),
    case("generic/5/9", "a literal without indexing, new name, Huffman", |client| literal(client, 0, &X_TEST_HUFFMAN)),
    case("generic/5/10", "a literal never indexed", |client| literal(client, 0x10, USER_AGENT)),
    case("generic/5/11", "a literal never indexed, Huffman", |client| literal(client, 0x10, &USER_AGENT_HUFFMAN)),
    case("generic/5/12", "a literal never indexed, new name", |client| literal(client, 0x10, X_TEST)),
    case("generic/5/13", "a literal never indexed, new name, Huffman", |client| literal(client, 0x10, &X_TEST_HUFFMAN)),
    case("generic/5/14", "an update of the dynamic table's size", |client| {
        client.handshake()?;
        let payload = [hpack::size_update(0), client.get_block()].concat();
        client.frame(HEADERS, WHOLE, 1, &payload);
        client.expect_headers(1)
    }),
    case("generic/5/15", "two updates of the dynamic table's size", |client| {
        client.handshake()?;
        let payload = [hpack::size_update(0), hpack::size_update(4_096), client.get_block()].concat();
        client.frame(HEADERS, WHOLE, 1, &payload);
        client.expect_headers(1)
    }),
];

/// `user-agent: h2spec`.
const USER_AGENT: &[u8] = b"\x0auser-agent\x06h2spec";
const USER_AGENT_HUFFMAN: [u8; 13] = [0x87, 0xb5, 0x05, 0xb1, 0x61, 0xcc, 0x5a, 0x93, 0x84, 0x9c, 0x48, 0xac, 0xa4];
/// `x-test: h2spec`.
const X_TEST: &[u8] = b"\x06x-test\x06h2spec";
const X_TEST_HUFFMAN: [u8; 11] = [0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x84, 0x9c, 0x48, 0xac, 0xa4];

/// A field after those of `GET`: how it is to be indexed, then its name and value.
fn literal(client: &mut Client, representation: u8, field: &[u8]) -> Verdict {
    accepts(client, &[&[representation], field].concat())
}

/// `GET` with more at the end of its header block is answered.
fn accepts(client: &mut Client, more: &[u8]) -> Verdict {
    client.handshake()?;
    let payload = [&client.get_block()[..], more].concat();
    client.frame(HEADERS, WHOLE, 1, &payload);
    client.expect_headers(1)
}

/// A PRIORITY frame, then `GET` on stream 1.
fn after_priority(client: &mut Client, stream: u32, depends_on: u32, weight: u8) -> Verdict {
    client.handshake()?;
    client.priority(stream, depends_on, weight);
    client.send_get(1);
    client.expect_headers(1)
}
