//! WebSocket by hand (RFC 6455): handshakes and frames, for a client and for the upstream's script.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::upstream::Received;
use super::wire::Wire;

/// The key that clients of the tests use.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A frame as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) masked: bool,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Code and reason of a Close.
    pub(crate) fn close(&self) -> (u16, String) {
        assert_eq!(self.opcode, 8, "no Close: {self:?}");
        (u16::from_be_bytes([self.payload[0], self.payload[1]]), String::from_utf8_lossy(&self.payload[2..]).into())
    }
}

/// The head of a handshake, with a token and whatever else.
pub(crate) fn handshake(target: &str, token: &str, more: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {token}\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{more}\r\n"
    )
}

/// The answer that agrees to a handshake.
pub(crate) fn agreement(received: &Received) -> String {
    let key = received.field("sec-websocket-key").unwrap_or_default();
    let accept = STANDARD
        .encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes()));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// A frame of up to 125 bytes, or with a longer length where it needs one.
pub(crate) fn frame(opcode: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    let mask = if masked { 0x80 } else { 0 };
    match payload.len() {
        short @ 0..=125 => bytes.push(mask | u8::try_from(short).unwrap()),
        medium @ 126..=0xFFFF => {
            bytes.push(mask | 126);
            bytes.extend(u16::try_from(medium).unwrap().to_be_bytes());
        }
        long => {
            bytes.push(mask | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    if masked {
        bytes.extend([1, 2, 3, 4]);
        bytes.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
    } else {
        bytes.extend(payload);
    }
    bytes
}

/// Reads one frame; `None` where the stream ended or broke.
pub(crate) fn read_frame(wire: &mut Wire) -> Option<Frame> {
    let head = wire.exactly(2).ok()?;
    let length = match head[1] & 0x7F {
        126 => u64::from(u16::from_be_bytes(wire.exactly(2).ok()?.try_into().unwrap())),
        127 => u64::from_be_bytes(wire.exactly(8).ok()?.try_into().unwrap()),
        short => u64::from(short),
    };
    let masked = head[1] & 0x80 != 0;
    let mask = if masked { wire.exactly(4).ok()? } else { vec![0; 4] };
    let payload = wire.exactly(usize::try_from(length).unwrap()).ok()?;
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Some(Frame { opcode: head[0] & 0x0F, masked, payload })
}

/// An upstream's script: agrees, then sends every frame back, unmasked, until a Close.
pub(crate) fn echo(received: &Received, wire: &mut Wire) {
    if wire.write(agreement(received).as_bytes()).is_err() {
        return;
    }
    while let Some(read) = read_frame(wire) {
        if wire.write(&frame(read.opcode, &read.payload, false)).is_err() || read.opcode == 8 {
            return;
        }
    }
}
