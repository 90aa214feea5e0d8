//! RFC 9113 sections 6.1 to 6.8 and 6.10: what each frame must be. (The numbers are those of RFC 7540.)

use super::client::*;
use super::{Case, case};

pub(super) const CASES: &[Case] = &[
    case("http2/6.1/1", "DATA of no stream", |client| {
        client.handshake()?;
        client.data(0, END_STREAM, b"test");
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.1/2", "DATA of a stream that is not open", |client| {
        client.handshake()?;
        client.headers(1, WHOLE, &client.request("POST"));
        client.data(1, END_STREAM, b"test");
        client.expect_stream_error(&[STREAM_CLOSED])
    }),
    case("http2/6.1/3", "DATA with more padding than payload", |client| {
        client.handshake()?;
        client.headers(1, END_HEADERS, &with(client.request("POST"), "content-length", "4"));
        client.data(1, END_STREAM | PADDED, b"\x06Test");
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.2/1", "HEADERS without END_HEADERS, then PRIORITY", |client| {
        client.handshake()?;
        client.headers(1, 0, &client.get());
        client.priority(1, 0, 255);
        client.continuation(1, END_HEADERS);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.2/2", "HEADERS without END_HEADERS, then HEADERS of another stream", |client| {
        client.handshake()?;
        client.headers(1, 0, &client.get());
        client.send_get(3);
        client.continuation(1, END_HEADERS);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.2/3", "HEADERS of no stream", |client| {
        client.handshake()?;
        client.send_get(0);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.2/4", "HEADERS with more padding than payload", |client| {
        client.handshake()?;
        let block = client.get_block();
        let padding = u8::try_from(block.len() + 2).expect("a short block");
        client.frame(HEADERS, WHOLE | PADDED, 1, &[&[padding], &block[..]].concat());
        client.expect_stream_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.3/1", "PRIORITY of no stream", |client| {
        client.handshake()?;
        client.priority(0, 0, 255);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.3/2", "PRIORITY of four bytes", |client| {
        client.handshake()?;
        client.send_get(1);
        client.frame(PRIORITY, 0, 1, b"\x80\0\0\x01");
        client.expect_stream_error(&[FRAME_SIZE_ERROR])
    }),
    case("http2/6.3/3", "PRIORITY of an idle stream, then HEADERS of a lower one", |client| {
        client.handshake()?;
        client.priority(3, 0, 255);
        client.send_get(1);
        client.expect(HEADERS).map(drop)
    }),
    case("http2/6.4/1", "RST_STREAM of no stream", |client| {
        client.handshake()?;
        client.reset(0, CANCEL);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.4/2", "RST_STREAM of an idle stream", |client| {
        client.handshake()?;
        client.reset(1, CANCEL);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.4/3", "RST_STREAM of three bytes", |client| {
        client.handshake()?;
        client.send_get(1);
        client.frame(RST_STREAM, 0, 1, &[0; 3]);
        client.expect_stream_error(&[FRAME_SIZE_ERROR])
    }),
    case("http2/6.5/1", "SETTINGS with ACK and a payload", |client| {
        client.handshake()?;
        client.frame(SETTINGS, ACK, 0, &[0]);
        client.expect_connection_error(&[FRAME_SIZE_ERROR])
    }),
    case("http2/6.5/2", "SETTINGS of a stream", |client| {
        client.handshake()?;
        client.frame(SETTINGS, 0, 1, b"\0\x03\0\0\0\x64");
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.5/3", "SETTINGS whose length is no multiple of six", |client| {
        client.handshake()?;
        client.frame(SETTINGS, 0, 0, b"\0\x03\0");
        client.expect_stream_error(&[PROTOCOL_ERROR, FRAME_SIZE_ERROR])
    }),
    case("http2/6.5.2/1", "SETTINGS_ENABLE_PUSH of 2", |client| {
        client.handshake()?;
        client.send_settings(&[(ENABLE_PUSH, 2)]);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.5.2/2", "SETTINGS_INITIAL_WINDOW_SIZE above the greatest", |client| {
        client.handshake()?;
        client.send_settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)]);
        client.expect_connection_error(&[FLOW_CONTROL_ERROR])
    }),
    case("http2/6.5.2/3", "SETTINGS_MAX_FRAME_SIZE below the least", |client| {
        client.handshake()?;
        client.send_settings(&[(MAX_FRAME_SIZE, 16_383)]);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.5.2/4", "SETTINGS_MAX_FRAME_SIZE above the greatest", |client| {
        client.handshake()?;
        client.send_settings(&[(MAX_FRAME_SIZE, 1 << 24)]);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.5.2/5", "an unknown setting", |client| {
        client.handshake()?;
        client.send_settings(&[(0xff, 1)]);
        client.ping(0, [0; 8]);
        client.expect(PING).map(drop)
    }),
    case("http2/6.5.3/1", "SETTINGS_INITIAL_WINDOW_SIZE twice in one frame", |client| {
        client.has_answer_of(1)?;
        client.handshake()?;
        client.send_settings(&[(INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)]);
        client.expect(SETTINGS)?;
        client.send_get(1);
        client.expect_data(1)
    }),
    case("http2/6.5.3/2", "SETTINGS, for their acknowledgement", |client| {
        client.handshake()?;
        client.send_settings(&[(ENABLE_PUSH, 0)]);
        client.expect_settings_ack()
    }),
    case("http2/6.7/1", "PING", |client| {
        client.handshake()?;
        client.ping(0, *b"h2spec\0\0");
        client.expect_ping(*b"h2spec\0\0")
    }),
    case("http2/6.7/2", "PING with ACK, which is not answered", |client| {
        client.handshake()?;
        client.ping(ACK, *b"invalid\0");
        client.ping(0, *b"h2spec\0\0");
        match client.expect(PING)? {
            frame if frame.payload == *b"h2spec\0\0" && frame.flags & ACK != 0 => Ok(()),
            frame => Err(format!("another PING: {frame:?}")),
        }
    }),
    case("http2/6.7/3", "PING of a stream", |client| {
        client.handshake()?;
        client.frame(PING, 0, 1, &[0; 8]);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.7/4", "PING of six bytes", |client| {
        client.handshake()?;
        client.frame(PING, 0, 0, &[0; 6]);
        client.expect_connection_error(&[FRAME_SIZE_ERROR])
    }),
    case("http2/6.8/1", "GOAWAY of a stream", |client| {
        client.handshake()?;
        client.frame(GOAWAY, 0, 1, &[0; 8]);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.10/1", "two CONTINUATIONs", |client| {
        client.handshake()?;
        client.headers(1, END_STREAM, &client.get());
        client.continuation(1, 0);
        client.continuation(1, END_HEADERS);
        client.expect(HEADERS).map(drop)
    }),
    case("http2/6.10/2", "DATA after a CONTINUATION without END_HEADERS", |client| {
        client.handshake()?;
        client.headers(1, 0, &client.request("POST"));
        client.continuation(1, 0);
        client.data(1, END_STREAM, b"test");
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.10/3", "CONTINUATION of no stream", |client| {
        client.handshake()?;
        client.headers(1, END_STREAM, &client.get());
        client.continuation(0, END_HEADERS);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.10/4", "CONTINUATION after HEADERS with END_HEADERS", |client| {
        client.handshake()?;
        client.send_get(1);
        client.continuation(1, END_HEADERS);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.10/5", "CONTINUATION after CONTINUATION with END_HEADERS", |client| {
        client.handshake()?;
        client.headers(1, END_STREAM, &client.get());
        client.continuation(1, END_HEADERS);
        client.continuation(1, END_HEADERS);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.10/6", "CONTINUATION after DATA", |client| {
        client.handshake()?;
        client.headers(1, 0, &client.request("POST"));
        client.data(1, END_STREAM, b"test");
        client.continuation(1, 0);
        client.continuation(0, END_HEADERS);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/7/1", "GOAWAY with an unknown code", |client| {
        client.handshake()?;
        client.goaway(0xff, b"");
        client.expect_closed()
    }),
    case("http2/7/2", "RST_STREAM with an unknown code", |client| {
        client.handshake()?;
        client.send_post();
        client.reset(1, 0xff);
        client.ping(0, [0; 8]);
        client.expect(PING).map(drop)
    }),
    case("http2/8.2/1", "PUSH_PROMISE", |client| {
        client.handshake()?;
        let payload = [&3_u32.to_be_bytes()[..], &client.get_block()].concat();
        client.frame(PUSH_PROMISE, END_HEADERS, 1, &payload);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
];
