//! RFC 7541: what a header block must be.

use super::client::*;
use super::{Case, Client, Verdict, case, hpack};

pub(super) const CASES: &[Case] = &[
    case("hpack/2.3.3/1", "an indexed field with an invalid index", |client| refused(client, &[0xfe])),
    case("hpack/2.3.3/2", "a literal with an invalid index", |client| refused(client, b"\x7f\x07\x05empty")),
    case("hpack/4.2/1", "an update of the table's size at the end", |client| refused(client, &hpack::size_update(1))),
    case("hpack/5.2/1", "Huffman padding of more than seven bits", |client| {
        refused(client, &[&X_TEST[..], b"\x84\x49\x50\x9f\xff"].concat())
    }),
    case("hpack/5.2/2", "Huffman padding of zeros", |client| {
        refused(client, &[&X_TEST[..], b"\x83\x49\x50\x90"].concat())
    }),
    case("hpack/5.2/3", "Huffman coding with the end of the string in it", |client| {
        refused(client, &[&X_TEST[..], b"\x87\xff\xff\xff\xfd\x25\x42\x7f"].concat())
    }),
    case("hpack/6.1/1", "an indexed field with index 0", |client| refused(client, &[0x80])),
    case("hpack/6.3/1", "an update of the table's size to more than is allowed", |client| {
        client.handshake()?;
        let most = client.settings.get(&HEADER_TABLE_SIZE).copied().unwrap_or(4_096);
        let payload = [hpack::size_update(most + 1), client.get_block()].concat();
        client.frame(HEADERS, WHOLE, 1, &payload);
        client.expect_connection_error(&[COMPRESSION_ERROR])
    }),
];

/// A literal without indexing whose name is `x-test` in Huffman coding; its value follows.
const X_TEST: [u8; 7] = [0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff];

/// A header block with this at its end cannot be decoded.
fn refused(client: &mut Client, more: &[u8]) -> Verdict {
    client.handshake()?;
    let payload = [&client.get_block()[..], more].concat();
    client.frame(HEADERS, WHOLE, 1, &payload);
    client.expect_connection_error(&[COMPRESSION_ERROR])
}
