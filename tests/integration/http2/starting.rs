//! RFC 9113 sections 3 and 4: the preface, the format of frames, header blocks. (The numbers are those of RFC 7540.)

use super::client::*;
use super::{Case, Client, case};

pub(super) const CASES: &[Case] = &[
    case("http2/3.5/1", "the client's preface", |client| {
        client.raw(PREFACE);
        client.send_settings(&[(INITIAL_WINDOW_SIZE, DEFAULT_WINDOW)]);
        client.expect(SETTINGS).map(drop)
    }),
    case("http2/3.5/2", "an invalid preface", |client| {
        client.raw(b"INVALID CONNECTION PREFACE\r\n\r\n");
        // What comes is no frame; only the end counts.
        client.expect_end_of_bytes()
    }),
    case("http2/4.1/1", "a frame of an unknown type", |client| {
        client.handshake()?;
        client.frame(UNKNOWN, 0, 0, &[0; 8]);
        client.ping(0, [0; 8]);
        client.expect(PING).map(drop)
    }),
    case("http2/4.1/2", "a frame with an undefined flag", |client| {
        client.handshake()?;
        client.frame(PING, 0x16, 0, &[0; 8]);
        client.expect(PING).map(drop)
    }),
    case("http2/4.1/3", "a frame with the reserved bit", |client| {
        client.handshake()?;
        client.frame(PING, 0x16, 1 << 31, &[0; 8]);
        client.expect(PING).map(drop)
    }),
    case("http2/4.2/1", "DATA as long as a frame may be", |client| {
        client.handshake()?;
        client.send_post();
        let most = frame_size(client);
        client.data(1, END_STREAM, &vec![b'x'; most]);
        client.expect(HEADERS).map(drop)
    }),
    case("http2/4.2/2", "DATA longer than a frame may be", |client| {
        client.handshake()?;
        client.send_post();
        let most = frame_size(client);
        client.data(1, END_STREAM, &vec![b'x'; most + 1]);
        client.expect_stream_error(&[FRAME_SIZE_ERROR])
    }),
    case("http2/4.2/3", "HEADERS longer than a frame may be", |client| {
        client.handshake()?;
        client.headers(1, WHOLE, &[client.get(), long_fields(5)].concat());
        client.expect_connection_error(&[FRAME_SIZE_ERROR])
    }),
    case("http2/4.3/1", "an invalid header block", |client| {
        client.handshake()?;
        client.frame(HEADERS, WHOLE, 1, &[0x40]);
        client.expect_connection_error(&[COMPRESSION_ERROR])
    }),
    case("http2/4.3/2", "PRIORITY in the midst of a header block", |client| {
        client.handshake()?;
        client.headers(1, 0, &client.get());
        client.priority(1, 0, 255);
        client.continuation(1, END_HEADERS);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
    case("http2/4.3/3", "HEADERS of another stream in the midst of a header block", |client| {
        client.handshake()?;
        client.headers(1, 0, &client.get());
        client.send_get(3);
        client.continuation(1, END_HEADERS);
        client.expect_connection_error(&[PROTOCOL_ERROR])
    }),
];

/// A type that no specification gives a meaning to.
pub(super) const UNKNOWN: u8 = 0x16;

/// How long a frame may be.
fn frame_size(client: &Client) -> usize {
    client.settings.get(&MAX_FRAME_SIZE).map_or(16_384, |&size| size as usize)
}
