//! RFC 9113 section 5: streams. (The numbers are those of RFC 7540.)

use super::client::*;
use super::starting::UNKNOWN;
use super::{Case, Client, Verdict, case};

pub(super) const CASES: &[Case] = &[
    case("http2/5.1/1", "idle: DATA", |client| {
        client.handshake()?;
        client.data(1, END_STREAM, b"test");
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/5.1/2", "idle: RST_STREAM", |client| {
        client.handshake()?;
        client.reset(1, CANCEL);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/5.1/3", "idle: WINDOW_UPDATE", |client| {
        client.handshake()?;
        client.window_update(1, 100);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/5.1/4", "idle: CONTINUATION", |client| {
        client.handshake()?;
        client.frame(CONTINUATION, END_HEADERS, 1, &client.get_block());
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/5.1/5", "half-closed (remote): DATA", |client| {
        client.handshake()?;
        client.send_get(1);
        client.data(1, END_STREAM, b"test");
        client.expect_stream_error(&[STREAM_CLOSED])
    }),
    case("http2/5.1/6", "half-closed (remote): HEADERS", |client| {
        client.handshake()?;
        client.send_get(1);
        client.send_get(1);
        client.expect_stream_error(&[STREAM_CLOSED])
    }),
    case("http2/5.1/7", "half-closed (remote): CONTINUATION", |client| {
        client.handshake()?;
        client.send_get(1);
        client.frame(CONTINUATION, END_HEADERS, 1, &client.get_block());
        client.expect_stream_error(&[STREAM_CLOSED, PROTOCOL_ERROR])
    }),
    case("http2/5.1/8", "closed by RST_STREAM: DATA", |client| {
        begin_and_reset(client)?;
        client.data(1, END_STREAM, b"test");
        client.expect_stream_error(&[STREAM_CLOSED])
    }),
    case("http2/5.1/9", "closed by RST_STREAM: HEADERS", |client| {
        begin_and_reset(client)?;
        client.send_get(1);
        client.expect_stream_error(&[STREAM_CLOSED])
    }),
    case("http2/5.1/10", "closed by RST_STREAM: CONTINUATION", |client| {
        begin_and_reset(client)?;
        client.continuation(1, END_HEADERS);
        client.expect_stream_error(&[STREAM_CLOSED, PROTOCOL_ERROR])
    }),
    case("http2/5.1/11", "closed: DATA", |client| {
        client.handshake()?;
        client.send_get(1);
        client.expect_stream_end()?;
        client.data(1, END_STREAM, b"test");
        client.expect_stream_error(&[STREAM_CLOSED])
    }),
    case("http2/5.1/12", "closed: HEADERS", |client| {
        client.handshake()?;
        client.send_get(1);
        client.expect_stream_end()?;
        client.send_get(1);
        client.expect_connection_error(&[STREAM_CLOSED])
    }),
    case("http2/5.1/13", "closed: CONTINUATION", |client| {
        client.handshake()?;
        client.send_get(1);
        client.expect_stream_end()?;
        client.continuation(1, END_HEADERS);
        client.expect_connection_error(&[STREAM_CLOSED, PROTOCOL_ERROR])
    }),
    case("http2/5.1.1/1", "an even stream identifier", |client| {
        client.handshake()?;
        client.send_get(2);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/5.1.1/2", "a lower stream identifier than the last", |client| {
        client.handshake()?;
        client.send_get(5);
        client.send_get(3);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/5.1.1/3", "the last stream identifier again", |client| {
        client.handshake()?;
        client.send_get(5);
        client.send_get(5);
        client.expect_stream_error(&[STREAM_CLOSED])
    }),
    case("http2/5.1.2/1", "more streams at a time than are allowed", |client| {
        client.handshake()?;
        let most = *client.settings.get(&MAX_CONCURRENT_STREAMS).ok_or("no limit of streams is announced")?;
        // Without a window, no answer ends.
        client.send_settings(&[(INITIAL_WINDOW_SIZE, 0)]);
        for stream in 0..=most {
            client.send_get(2 * stream + 1);
        }
        client.expect_stream_error(&[PROTOCOL_ERROR, REFUSED_STREAM])
    }),
    case("http2/5.3.1/1", "HEADERS of a stream that depends on itself", |client| {
        client.handshake()?;
        let payload = [priority(1, 255), client.get_block()].concat();
        client.frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &payload);
        client.expect_stream_error(&[PROTOCOL_ERROR])
    }),
    case("http2/5.3.1/2", "PRIORITY of a stream that depends on itself", |client| {
        client.handshake()?;
        client.priority(1, 1, 255);
        client.expect_stream_error(&[PROTOCOL_ERROR])
    }),
    case("http2/5.4.1/1", "an invalid PING, for the end of the connection", |client| {
        client.handshake()?;
        client.frame(PING, 0, 3, &[0; 8]);
        client.expect_closed()
    }),
    case("http2/5.4.1/2", "an invalid PING, for GOAWAY", |client| {
        client.handshake()?;
        client.frame(PING, 0, 3, &[0; 8]);
        client.expect(GOAWAY).map(drop)
    }),
    case("http2/5.5/1", "an unknown extension frame", |client| {
        client.handshake()?;
        client.frame(UNKNOWN, 0, 0, &[0; 8]);
        client.ping(0, [0; 8]);
        client.expect(PING).map(drop)
    }),
    case("http2/5.5/2", "an unknown extension frame in the midst of a header block", |client| {
        client.handshake()?;
        client.headers(1, END_STREAM, &client.get());
        client.frame(UNKNOWN, 0, 0, &[0; 8]);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
];

/// A request whose body is to follow, taken back.
fn begin_and_reset(client: &mut Client) -> Verdict {
    client.handshake()?;
    client.headers(1, END_HEADERS, &client.get());
    client.reset(1, CANCEL);
    Ok(())
}
