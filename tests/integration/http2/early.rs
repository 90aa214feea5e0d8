//! Answers that come before the end of a request's body.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::{Client, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, Target, WHOLE, WINDOW_UPDATE};
use super::{Verdict, start};
use crate::harness::Upstream;

const NO_ERROR: [u8; 4] = [0; 4];
/// As long as a stream is not reset whose body nobody wants.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of one DATA frame.
const PIECE: usize = 16 * 1024;

fn denying(run: impl Fn(&mut Client) -> Verdict) {
    let upstream = Upstream::echo();
    let running = start(&upstream);
    let target = Arc::new(Target::plain(running.gateway, "/me"));
    let mut client = Client::connect(&target).unwrap();
    client.handshake().unwrap();
    run(&mut client).unwrap();
    assert_eq!(upstream.count(), 0);
}

/// The head of a POST on this stream, and then the answer's.
fn post(client: &mut Client, stream: u32) -> Verdict {
    let fields = client.request("POST");
    client.headers(stream, END_HEADERS, &fields);
    client.expect_headers(stream)
}

#[test]
fn a_denial_is_whole_before_the_stream_is_reset() {
    // curl 7.88 drops an answer that it finds in one reading with the reset: "Empty reply from server".
    denying(|client| {
        let begun = Instant::now();
        post(client, 1)?;
        client.expect_stream_end()?;
        client.data(1, END_STREAM, &[]);
        client.send_get(3);
        match client.next_frame()? {
            frame if frame.kind == HEADERS => Ok(()),
            // On a machine that was busy for so long the body's end came too late.
            _ if begun.elapsed() >= PATIENCE => Ok(()),
            frame => Err(format!("{frame:?}")),
        }
    });
}

#[test]
fn a_client_that_does_not_stop_is_reset_without_an_error() {
    denying(|client| {
        post(client, 1)?;
        client.expect_stream_end()?;
        let reset = client.next_frame()?;
        if (reset.kind, reset.stream, reset.payload.as_slice()) != (RST_STREAM, 1, &NO_ERROR) {
            return Err(format!("{reset:?}"));
        }
        // What is in flight behind the reset harms nobody.
        for _ in 0..3 {
            client.data(1, 0, &[0; PIECE]);
        }
        client.data(1, END_STREAM, &[]);
        client.headers(3, WHOLE, &client.get());
        client.expect_headers(3)
    });
}

#[test]
fn denied_uploads_use_up_no_window_of_the_connection() {
    denying(|client| {
        let mut window = 65_535;
        // All windows of the connection together are of a megabyte, and each of these streams leaves part of its body unread.
        for stream in (1..200).step_by(2) {
            let fields = client.request("POST");
            client.headers(stream, END_HEADERS, &fields);
            for _ in 0..3 {
                while window < PIECE {
                    let frame = client.next_frame()?;
                    match frame.kind {
                        WINDOW_UPDATE if frame.stream == 0 => {
                            window += u32::from_be_bytes(frame.payload[..4].try_into().unwrap()) as usize;
                        }
                        GOAWAY => return Err(format!("{frame:?}")),
                        _ => {}
                    }
                }
                client.data(stream, 0, &[0; PIECE]);
                window -= PIECE;
            }
        }
        Ok(())
    });
}

#[test]
fn an_answer_of_the_service_is_whole_too() {
    let upstream = Upstream::start(crate::harness::Behaviour::IgnoreBody);
    let running = start(&upstream);
    let target = Arc::new(Target::plain(running.gateway, "/"));
    let mut client = Client::connect(&target).unwrap();
    client.handshake().unwrap();
    let fields = client.request("POST");
    client.headers(1, END_HEADERS, &fields);
    let mut seen = Vec::new();
    while seen.last() != Some(&RST_STREAM) {
        seen.push(client.next_frame().unwrap().kind);
    }
    assert!(seen.contains(&HEADERS) && seen.contains(&DATA), "{seen:?}");
}
