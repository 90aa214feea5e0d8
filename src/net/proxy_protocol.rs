//! The PROXY protocol, versions 1 and 2 (<https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>): a header in front of
//! everything else, by which a load balancer that carries TCP says who connected to it.
//!
//! It is believed from configured networks only, and required from them (T29): with the header optional, a client behind the
//! balancer could write its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncRead;

use super::prefixed::Prefixed;

/// Longest header of version 1, line end included (section 2.1).
const LONGEST_V1: usize = 107;
/// Longest header of version 2 that is read: addresses take 36 bytes, all else is extras that nobody here reads.
const LONGEST_V2: usize = 4096;
/// How every header of version 2 begins (section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Where a header of version 2 has its addresses.
const FIXED: usize = 16;
/// The extra that holds a checksum of the header (section 2.2.3).
const CRC32C: u8 = 0x03;

/// A header, and how many bytes it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Who connected; `None` where the balancer speaks for itself or does not know.
    pub source: Option<SocketAddr>,
    /// Its bytes.
    pub length: usize,
}

/// What came is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

/// Takes a header off the stream: who connected, if it says so.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if what comes is no header; else what the stream says.
pub(super) async fn take<S>(stream: &mut Prefixed<S>) -> io::Result<Option<SocketAddr>>
where
    S: AsyncRead + Unpin,
{
    let mut bytes = Vec::new();
    loop {
        match parse(&bytes).map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed))? {
            Some(header) => {
                bytes.drain(..header.length);
                stream.put_back(bytes);
                return Ok(header.source);
            }
            None if stream.read_into(&mut bytes).await? == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            None => {}
        }
    }
}

/// Reads a header at the beginning of `bytes`; `None` as long as it is incomplete.
///
/// # Errors
/// [`Malformed`] as soon as it cannot become one.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let begins = |with: &[u8]| {
        let length = bytes.len().min(with.len());
        bytes[..length] == with[..length]
    };
    match (begins(b"PROXY "), begins(SIGNATURE)) {
        (true, _) => version1(bytes),
        (_, true) => version2(bytes),
        _ => Err(Malformed("no PROXY protocol header")),
    }
}

fn version1(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let within = &bytes[..bytes.len().min(LONGEST_V1)];
    let Some(end) = memchr::memchr(b'\n', within) else {
        return if within.len() < LONGEST_V1 { Ok(None) } else { Err(Malformed("a header of over 107 bytes")) };
    };
    let line = within[..end].strip_suffix(b"\r").ok_or(Malformed("a header without its carriage return"))?;
    let line = str::from_utf8(line).map_err(|_| Malformed("a header that is no text"))?;
    let length = end + 1;
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(Some(Header { source: None, length }));
    }
    let mut address = || words.next().ok_or(Malformed("a header that lacks an address"));
    let (source, destination) = match family {
        Some("TCP4") => (parsed::<Ipv4Addr>(address()?)?.into(), parsed::<Ipv4Addr>(address()?)?.into()),
        Some("TCP6") => (parsed::<Ipv6Addr>(address()?)?.into(), parsed::<Ipv6Addr>(address()?)?.into()),
        _ => return Err(Malformed("an unknown family")),
    };
    let _: (IpAddr, IpAddr) = (source, destination);
    let mut port = || {
        let text = words.next().ok_or(Malformed("a header that lacks a port"))?;
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
        text.parse::<u16>().ok().filter(|_| plain).ok_or(Malformed("a port that is no number"))
    };
    let (from, _to) = (port()?, port()?);
    match words.next() {
        None => Ok(Some(Header { source: Some(SocketAddr::new(source, from)), length })),
        Some(_) => Err(Malformed("more behind the ports")),
    }
}

fn parsed<A: std::str::FromStr>(text: &str) -> Result<A, Malformed> {
    text.parse().map_err(|_| Malformed("an address that is none of its family"))
}

fn version2(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some((fixed, _)) = bytes.split_first_chunk::<FIXED>() else { return Ok(None) };
    let length = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > LONGEST_V2 {
        return Err(Malformed("a header of over 4096 bytes"));
    }
    let local = match fixed[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed("an unknown version or command")),
    };
    let addresses = match fixed[13] {
        // What the balancer does not know, and datagrams, which TCP does not carry.
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _ => return Err(Malformed("an unknown family or transport")),
    };
    let Some(header) = bytes.get(..length) else { return Ok(None) };
    let body = &header[FIXED..];
    let (addresses, extras) = match body.split_at_checked(addresses) {
        Some(parts) => parts,
        // A health check of the balancer's own needs no addresses, whatever family it names.
        None if local => return Ok(Some(Header { source: None, length })),
        None => return Err(Malformed("a header that is too short for its addresses")),
    };
    // Without a family nothing says where extras would begin.
    if fixed[13] != 0x00 {
        check_extras(header, extras)?;
    }
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    let source = match (local, addresses.len()) {
        (false, 12) => addresses.first_chunk::<4>().map(|ip| SocketAddr::new(Ipv4Addr::from(*ip).into(), port(8))),
        (false, 36) => addresses.first_chunk::<16>().map(|ip| SocketAddr::new(Ipv6Addr::from(*ip).into(), port(32))),
        _ => None,
    };
    Ok(Some(Header { source, length }))
}

/// Walks over what stands behind the addresses. A checksum is checked, all else passed over.
fn check_extras(header: &[u8], mut extras: &[u8]) -> Result<(), Malformed> {
    while let Some(([kind, high, low], rest)) = extras.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, rest) = rest.split_at_checked(length).ok_or(Malformed("an extra that is cut off"))?;
        if *kind == CRC32C {
            let said = value.try_into().map(u32::from_be_bytes).map_err(|_| Malformed("a checksum of another size"))?;
            let at = header.len() - rest.len() - length;
            // It was made with zeros in its own place.
            if said != crc32c(header[..at].iter().chain(&[0; 4]).chain(rest)) {
                return Err(Malformed("a checksum that does not fit"));
            }
        }
        extras = rest;
    }
    if extras.is_empty() { Ok(()) } else { Err(Malformed("an extra that is cut off")) }
}

/// CRC-32C (RFC 3720 section 12.1), bit by bit: headers are short and seldom.
fn crc32c<'b>(bytes: impl Iterator<Item = &'b u8>) -> u32 {
    let byte = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 })
    };
    !bytes.fold(!0, byte)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    const TCP4: &[u8] = &[192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0x1f, 0x90];

    fn tcp6() -> Vec<u8> {
        let mut body = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets().to_vec();
        body.extend([0; 16]);
        body.extend([0x12, 0x34, 0, 80]);
        body
    }

    fn with_checksum(wrong: u8) -> Vec<u8> {
        let mut body = TCP4.to_vec();
        // An extra before it and one behind it.
        body.extend([0x01, 0, 2, b'h', b'2', CRC32C, 0, 4, 0, 0, 0, 0, 0x04, 0, 1, 0]);
        let mut bytes = v2(0x21, 0x11, &body);
        let sum = crc32c(bytes.iter());
        let at = bytes.len() - 8;
        bytes[at..at + 4].copy_from_slice(&(sum ^ u32::from(wrong)).to_be_bytes());
        bytes
    }

    fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
        vec![
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 8080\r\n".to_vec(), Some("192.0.2.7:4660")),
            (b"PROXY TCP6 2001:db8::7 ::1 4660 80\r\n".to_vec(), Some("[2001:db8::7]:4660")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (v2(0x21, 0x11, TCP4), Some("192.0.2.7:4660")),
            (v2(0x21, 0x21, &tcp6()), Some("[2001:db8::7]:4660")),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, TCP4), None),
            (v2(0x20, 0x11, &[]), None),
            (v2(0x21, 0x00, &[1, 2, 3]), None),
            (v2(0x21, 0x31, &[0; 216]), None),
            (with_checksum(0), Some("192.0.2.7:4660")),
        ]
    }

    #[test]
    fn headers_are_read_whatever_follows_them() {
        for (bytes, source) in good() {
            let header = Header { source: source.map(|source| source.parse().unwrap()), length: bytes.len() };
            assert_eq!(parse(&bytes), Ok(Some(header)), "{}", bytes.escape_ascii());
            let followed = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&followed), Ok(Some(header)), "{}", bytes.escape_ascii());
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{} cut at {cut}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let long = [b"PROXY UNKNOWN ", &[b'x'; 100][..], b"\r\n"].concat();
        let cut_extra = [TCP4, &[0x04, 0, 9, 0]].concat();
        let short_extra = [TCP4, &[0x04, 0]].concat();
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY\tTCP4",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 8080\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4660\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 8080 1\r\n",
            b"PROXY TCP4 192.0.2.7  10.0.0.1 4660 8080\r\n",
            b"PROXY TCP4 ::1 ::2 4660 8080\r\n",
            b"PROXY TCP6 192.0.2.7 10.0.0.1 4660 8080\r\n",
            b"PROXY TCP4 192.0.2.07 10.0.0.1 4660 8080\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 04660 8080\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 +4660 8080\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 66000 8080\r\n",
            b"PROXY tcp4 192.0.2.7 10.0.0.1 4660 8080\r\n",
            b"PROXY \r\n",
            &long,
            &v2(0x11, 0x11, TCP4),
            &v2(0x22, 0x11, TCP4),
            &v2(0x21, 0x12, TCP4),
            &v2(0x21, 0x41, TCP4),
            &v2(0x21, 0x11, &TCP4[..11]),
            &v2(0x21, 0x21, TCP4),
            &v2(0x21, 0x11, &[0; 5000]),
            &v2(0x21, 0x11, &cut_extra),
            &v2(0x21, 0x11, &short_extra),
            &with_checksum(1),
        ] {
            assert!(parse(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789".iter()), 0xE306_9283);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(
            (bytes, at, byte) in (prop::collection::vec(any::<u8>(), 0..300), any::<prop::sample::Index>(), any::<u8>()),
        ) {
            let _ = parse(&bytes);
            for (mut header, _) in good() {
                let at = at.index(header.len());
                header[at] = byte;
                header.extend(&bytes);
                if let Ok(Some(read)) = parse(&header) {
                    prop_assert!(read.length <= header.len());
                    // What was read stays read, and no less of it is enough.
                    prop_assert_eq!(parse(&header[..read.length]), Ok(Some(read)));
                    prop_assert_eq!(parse(&header[..read.length - 1]), Ok(None));
                }
                let _ = parse(&[&SIGNATURE[..], &bytes].concat());
                let _ = parse(&[b"PROXY TCP4 ", &bytes[..]].concat());
            }
        }
    }
}
