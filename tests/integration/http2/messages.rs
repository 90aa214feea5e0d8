//! RFC 9113 section 8: what a request must be. (The numbers are those of RFC 7540.)

use super::client::*;
use super::{Case, Client, Verdict, case};

pub(super) const CASES: &[Case] = &[
    case("http2/8.1/1", "a second HEADERS frame without END_STREAM", |client| {
        client.handshake()?;
        client.send_post();
        client.data(1, 0, b"test");
        client.headers(1, END_HEADERS, &with(Vec::new(), "x-test", "ok"));
        client.expect_stream_error(&[PROTOCOL_ERROR])
    }),
    case("http2/8.1.2/1", "a field name in upper case", |client| with_one_more(client, "X-TEST", "ok")),
    case("http2/8.1.2.1/1", "an unknown pseudo-header", |client| with_one_more(client, ":test", "ok")),
    case("http2/8.1.2.1/2", "a pseudo-header of responses", |client| with_one_more(client, ":status", "200")),
    case("http2/8.1.2.1/3", "a pseudo-header among trailers", |client| {
        client.handshake()?;
        client.send_post();
        client.data(1, 0, b"test");
        client.headers(1, END_HEADERS, &with(Vec::new(), ":method", "POST"));
        client.expect_stream_error(&[PROTOCOL_ERROR])
    }),
    case("http2/8.1.2.1/4", "a pseudo-header after a field", |client| {
        let fields = [with(Vec::new(), "x-test", "ok"), client.get()].concat();
        refused(client, &fields)
    }),
    case("http2/8.1.2.2/1", "Connection", |client| with_one_more(client, "connection", "keep-alive")),
    case("http2/8.1.2.2/2", "TE with another value than trailers", |client| {
        let fields = with(with(client.get(), "trailers", "test"), "te", "trailers, deflate");
        refused(client, &fields)
    }),
    case("http2/8.1.2.3/1", "an empty :path", |client| {
        let mut fields = client.get();
        fields[2].1.clear();
        refused(client, &fields)
    }),
    case("http2/8.1.2.3/2", "no :method", |client| without(client, 0)),
    case("http2/8.1.2.3/3", "no :scheme", |client| without(client, 1)),
    case("http2/8.1.2.3/4", "no :path", |client| without(client, 2)),
    case("http2/8.1.2.3/5", ":method twice", |client| twice(client, 0)),
    case("http2/8.1.2.3/6", ":scheme twice", |client| twice(client, 1)),
    case("http2/8.1.2.3/7", ":path twice", |client| twice(client, 2)),
    case("http2/8.1.2.6/1", "another length than Content-Length says", |client| {
        client.handshake()?;
        client.headers(1, END_HEADERS, &with(client.request("POST"), "content-length", "1"));
        client.data(1, END_STREAM, b"test");
        client.expect_stream_error(&[PROTOCOL_ERROR])
    }),
    case("http2/8.1.2.6/2", "another length than Content-Length says, in two frames", |client| {
        client.handshake()?;
        client.headers(1, END_HEADERS, &with(client.request("POST"), "content-length", "1"));
        client.data(1, 0, b"test");
        client.data(1, END_STREAM, b"test");
        client.expect_stream_error(&[PROTOCOL_ERROR])
    }),
];

/// These fields are malformed (RFC 9113 section 8.1.1).
fn refused(client: &mut Client, fields: &[(&'static str, String)]) -> Verdict {
    client.handshake()?;
    client.headers(1, WHOLE, fields);
    client.expect_stream_error(&[PROTOCOL_ERROR])
}

fn with_one_more(client: &mut Client, name: &'static str, value: &str) -> Verdict {
    let fields = with(client.get(), name, value);
    refused(client, &fields)
}

fn without(client: &mut Client, index: usize) -> Verdict {
    let mut fields = client.get();
    fields.remove(index);
    refused(client, &fields)
}

fn twice(client: &mut Client, index: usize) -> Verdict {
    let mut fields = client.get();
    fields.push(fields[index].clone());
    refused(client, &fields)
}
