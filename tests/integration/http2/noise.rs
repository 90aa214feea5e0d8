//! Frames at random, of which many are nearly right: whatever comes of their connection, doorward serves the next.

use std::sync::Arc;
use std::time::Duration;

use super::client::*;
use super::{Client, Verdict, start};
use crate::harness::{Upstream, eventually};

/// Connections, each with frames of its own.
const CONNECTIONS: u64 = 400;

/// Numbers that are the same in every run (xorshift64*).
struct Chance(u64);

impl Chance {
    fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.number() >> 33) as usize % most
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// A frame that a client could send, one way or another wrong or not.
fn frame(chance: &mut Chance, client: &mut Client) {
    let kind = chance.one(&[
        DATA,
        DATA,
        HEADERS,
        HEADERS,
        HEADERS,
        PRIORITY,
        RST_STREAM,
        SETTINGS,
        PUSH_PROMISE,
        PING,
        GOAWAY,
        WINDOW_UPDATE,
        CONTINUATION,
        11,
    ]);
    let block = block(&client.request(chance.one(&["GET", "POST", "HEAD", "CONNECT", "get"])));
    let mut payload = match kind {
        HEADERS | CONTINUATION => block,
        PUSH_PROMISE => [&[0, 0, 0, 2], &block[..]].concat(),
        PRIORITY => priority(chance.number() as u32 & 7, chance.number() as u8),
        RST_STREAM => (chance.number() as u32 & 15).to_be_bytes().to_vec(),
        WINDOW_UPDATE => (chance.number() as u32 >> chance.below(32)).to_be_bytes().to_vec(),
        PING => vec![0; 8],
        GOAWAY => vec![0; 8 + chance.below(20)],
        SETTINGS => {
            let one = |chance: &mut Chance| {
                let value = chance.one(&[0, 1, 100, 16_384, 65_535, 1 << 24, u32::MAX]);
                [&[0, chance.below(10) as u8][..], &value.to_be_bytes()].concat()
            };
            (0..chance.below(4)).flat_map(|_| one(chance)).collect()
        }
        _ => vec![b'x'; chance.below(3_000)],
    };
    match chance.below(8) {
        0 if !payload.is_empty() => {
            let at = chance.below(payload.len());
            payload[at] = chance.number() as u8;
        }
        1 => payload.truncate(chance.below(payload.len() + 1)),
        2 => payload.extend(std::iter::repeat_n(0xff, chance.below(40))),
        _ => {}
    }
    let flags = chance.one(&[0, END_STREAM, END_HEADERS, WHOLE, WHOLE, WHOLE | PADDED, WHOLE | WITH_PRIORITY, 0xff]);
    let stream = chance.one(&[0, 1, 1, 1, 3, 3, 5, 2, 7, u32::MAX]);
    client.frame(kind, flags, stream, &payload);
}

#[test]
fn frames_at_random_harm_nobody() {
    let upstream = Upstream::echo();
    let running = start(&upstream);
    let target = Arc::new(Target::plain(running.gateway, "/"));
    let serves = || -> Verdict {
        let mut client = Client::connect(&target)?;
        client.handshake()?;
        client.send_get(1);
        client.expect_stream_end()
    };
    for seed in 1..=CONNECTIONS {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut client = Client::connect(&target).unwrap();
        client.raw(PREFACE);
        client.send_settings(&[]);
        for _ in 0..chance.below(12) + 1 {
            frame(&mut chance, &mut client);
        }
        drop(client);
        if seed % 50 == 0 {
            serves().unwrap();
        }
    }
    // That it panicked, the harness would hold against the process.
    eventually("all connections are gone", Duration::from_secs(30), || {
        (running.metric("doorward_connections", &["listener=\"gateway\""]) < 0.5).then_some(())
    });
}
