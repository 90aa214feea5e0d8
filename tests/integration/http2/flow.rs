//! RFC 9113 section 6.9: flow control. (The numbers are those of RFC 7540.)

use super::client::*;
use super::{Case, case};

pub(super) const CASES: &[Case] = &[
    case("http2/6.9/1", "WINDOW_UPDATE of the connection by 0", |client| {
        client.handshake()?;
        client.window_update(0, 0);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.9/2", "WINDOW_UPDATE of a stream by 0", |client| {
        client.handshake()?;
        client.headers(1, END_HEADERS, &client.get());
        client.window_update(1, 0);
        client.expect_stream_error(&[PROTOCOL_ERROR])
    }),
    case("http2/6.9/3", "WINDOW_UPDATE of three bytes", |client| {
        client.handshake()?;
        client.frame(WINDOW_UPDATE, 0, 0, b"\0\0\x01");
        client.expect_connection_error(&[FRAME_SIZE_ERROR])
    }),
    case("http2/6.9.1/1", "a window of one byte, then a request", |client| {
        client.has_answer_of(1)?;
        client.handshake()?;
        client.send_settings(&[(INITIAL_WINDOW_SIZE, 1)]);
        client.expect(SETTINGS)?;
        client.send_get(1);
        client.expect_data(1)
    }),
    case("http2/6.9.1/2", "WINDOW_UPDATEs of the connection to more than the greatest", |client| {
        client.handshake()?;
        client.window_update(0, GREATEST);
        client.window_update(0, GREATEST);
        let frame = client.expect(GOAWAY)?;
        if frame.payload.get(4..8) == Some(&FLOW_CONTROL_ERROR.to_be_bytes()) {
            Ok(())
        } else {
            Err(format!("{frame:?}"))
        }
    }),
    case("http2/6.9.1/3", "WINDOW_UPDATEs of a stream to more than the greatest", |client| {
        client.handshake()?;
        client.headers(1, END_HEADERS, &client.get());
        client.window_update(1, GREATEST);
        client.window_update(1, GREATEST);
        let frame = client.expect(RST_STREAM)?;
        if frame.stream == 1 && frame.payload == FLOW_CONTROL_ERROR.to_be_bytes() {
            Ok(())
        } else {
            Err(format!("{frame:?}"))
        }
    }),
    case("http2/6.9.2/1", "another initial window after a request", |client| {
        client.has_answer_of(1)?;
        client.handshake()?;
        client.send_settings(&[(INITIAL_WINDOW_SIZE, 0)]);
        client.expect(SETTINGS)?;
        client.send_get(1);
        client.send_settings(&[(INITIAL_WINDOW_SIZE, 1)]);
        client.expect(SETTINGS)?;
        client.expect_data(1)
    }),
    case("http2/6.9.2/2", "an initial window that makes a stream's negative", |client| {
        client.has_answer_of(5)?;
        client.handshake()?;
        client.send_settings(&[(INITIAL_WINDOW_SIZE, 3)]);
        client.expect(SETTINGS)?;
        client.send_get(1);
        client.expect(DATA)?;
        client.send_settings(&[(INITIAL_WINDOW_SIZE, 2)]);
        client.expect(SETTINGS)?;
        client.window_update(1, 2);
        client.expect_data(1)
    }),
    case("http2/6.9.2/3", "an initial window above the greatest", |client| {
        client.handshake()?;
        client.send_settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)]);
        client.expect_connection_error(&[FLOW_CONTROL_ERROR])
    }),
];

/// The greatest window.
const GREATEST: u32 = (1 << 31) - 1;
