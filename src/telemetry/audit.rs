//! Audit events of requests: denials, and every request to a route that is marked `audit: true` (SPEC 3.9).
//!
//! They go to the `log` sink, behind the access line of the same request and with its id. Denials cost nothing to whoever
//! makes them, so beyond a bound a second they are only counted (T41): they crowd nothing else out.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::access_log::{AccessSink, Stamp, cut, decimal, json_optional, json_string, terminal_safe};
use super::tracing::LogFormat;

/// Denials that are written in a second; the others are counted.
const DENIALS_A_SECOND: u32 = 100;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditEvent {
    /// A request was refused.
    Denied,
    /// A request to a route that is marked `audit: true` was let through.
    Audited,
}

impl AuditEvent {
    /// The `event_type`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Denied => "access.denied",
            Self::Audited => "access.audited",
        }
    }
}

/// What an event tells. It holds no path, which is in the access line, and no query, token or body.
#[derive(Debug, Clone, Copy)]
pub struct AuditRecord<'a> {
    /// What happened.
    pub event: AuditEvent,
    /// When the request's head had been read.
    pub time: SystemTime,
    /// The id that is also in `X-Request-Id` and in the access line.
    pub request_id: &'a str,
    /// The policy's service.
    pub service: Option<&'a str>,
    /// The policy's path pattern.
    pub route: Option<&'a str>,
    /// The method, raw.
    pub method: &'a [u8],
    /// The status that was answered.
    pub status: u16,
    /// Why it was refused.
    pub reason: Option<&'a str>,
    /// The caller.
    pub subject: Option<&'a str>,
    /// The client's address.
    pub peer: Option<IpAddr>,
}

impl AccessSink {
    /// Appends the event's line; a denial only while this second's are within the bound, else it is counted.
    pub fn audit(&self, record: &AuditRecord<'_>) {
        if record.event == AuditEvent::Denied {
            match self.denials().admit(record.time) {
                Sampled::Write => {}
                Sampled::LeftOut { first } => {
                    if first {
                        self.wake();
                    }
                    return;
                }
            }
        }
        self.append(|format, out, stamp| match format {
            LogFormat::Pretty => pretty_line(out, stamp, record),
            LogFormat::Json | LogFormat::Auto => json_line(out, stamp, record),
        });
    }
}

/// What becomes of a denial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sampled {
    Write,
    /// `first`: nothing had been left out since the last report.
    LeftOut {
        first: bool,
    },
}

/// How many denials were written in this second, over all workers, and how many were left out since the last report.
#[derive(Debug, Default)]
pub(super) struct Denials(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    second: u64,
    written: u32,
    left_out: u64,
}

impl Denials {
    fn admit(&self, time: SystemTime) -> Sampled {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let second = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // A slow request ends with the time of its beginning: only a later second opens the next budget.
        if second > counts.second {
            counts.second = second;
            counts.written = 0;
        }
        if counts.written < DENIALS_A_SECOND {
            counts.written += 1;
            return Sampled::Write;
        }
        counts.left_out += 1;
        Sampled::LeftOut { first: counts.left_out == 1 }
    }

    /// Whether there is something to report.
    pub(super) fn any_left_out(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).left_out > 0
    }

    /// Appends a line with the number of what was left out, if there is any: once the second is over, or `at_once`.
    pub(super) fn report(&self, format: LogFormat, out: &mut Vec<u8>, now: SystemTime, at_once: bool) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() > counts.second;
        if counts.left_out == 0 || !(over || at_once) {
            return;
        }
        let left_out = std::mem::take(&mut counts.left_out);
        drop(counts);
        let mut stamp = Stamp::default();
        if format == LogFormat::Pretty {
            stamp.write(out, now);
            out.extend_from_slice(b" audit access.denied left_out=");
            decimal(out, left_out, 1);
            out.push(b'\n');
        } else {
            out.extend_from_slice(b"{\"type\":\"audit\",\"event_type\":\"access.denied.left_out\",\"time\":\"");
            stamp.write(out, now);
            out.extend_from_slice(b"\",\"left_out\":");
            decimal(out, left_out, 1);
            out.extend_from_slice(b"}\n");
        }
    }
}

fn json_line(out: &mut Vec<u8>, stamp: &mut Stamp, record: &AuditRecord<'_>) {
    out.extend_from_slice(b"{\"type\":\"audit\",\"event_type\":\"");
    out.extend_from_slice(record.event.code().as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    stamp.write(out, record.time);
    out.extend_from_slice(b"\",\"request_id\":");
    json_string(out, record.request_id.as_bytes());
    for (key, value) in [
        (&b",\"service\":"[..], record.service.map(str::as_bytes)),
        (b",\"route\":", record.route.map(str::as_bytes)),
        (b",\"method\":", Some(cut(record.method))),
    ] {
        out.extend_from_slice(key);
        json_optional(out, value);
    }
    out.extend_from_slice(b",\"status\":");
    decimal(out, u64::from(record.status), 1);
    let peer = record.peer.map(|peer| peer.to_string());
    for (key, value) in
        [(&b",\"reason\":"[..], record.reason), (b",\"subject\":", record.subject), (b",\"peer\":", peer.as_deref())]
    {
        out.extend_from_slice(key);
        json_optional(out, value.map(str::as_bytes));
    }
    out.extend_from_slice(b"}\n");
}

fn pretty_line(out: &mut Vec<u8>, stamp: &mut Stamp, record: &AuditRecord<'_>) {
    stamp.write(out, record.time);
    out.extend_from_slice(b" audit ");
    out.extend_from_slice(record.event.code().as_bytes());
    out.push(b' ');
    terminal_safe(out, cut(record.method));
    for (name, value) in [
        (" route=", record.route),
        (" reason=", record.reason),
        (" subject=", record.subject),
        (" request_id=", Some(record.request_id)),
    ] {
        if let Some(value) = value {
            out.extend_from_slice(name.as_bytes());
            terminal_safe(out, value.as_bytes());
        }
    }
    out.push(b'\n');
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::time::Duration;

    fn record() -> AuditRecord<'static> {
        AuditRecord {
            event: AuditEvent::Denied,
            time: UNIX_EPOCH + Duration::from_millis(1_782_172_799_042),
            request_id: "0197",
            service: Some("oms"),
            route: None,
            method: b"GE\"T\n",
            status: 403,
            reason: Some("no_route"),
            subject: Some("alice"),
            peer: Some(IpAddr::from([10, 0, 0, 1])),
        }
    }

    #[test]
    fn an_event_is_one_line_of_json_with_its_keys_in_order() {
        let mut out = Vec::new();
        json_line(&mut out, &mut Stamp::default(), &record());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"type\":\"audit\",\"event_type\":\"access.denied\",\"time\":\"2026-06-22T23:59:59.042Z\",\
             \"request_id\":\"0197\",\"service\":\"oms\",\"route\":null,\"method\":\"GE\\\"T\\n\",\"status\":403,\
             \"reason\":\"no_route\",\"subject\":\"alice\",\"peer\":\"10.0.0.1\"}\n"
        );
        let mut out = Vec::new();
        pretty_line(&mut out, &mut Stamp::default(), &record());
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1, "a method cannot break the line");
    }

    #[test]
    fn t41_denials_beyond_the_bound_are_counted_and_the_count_is_told_once() {
        let denials = Denials::default();
        let at = |second: u64| UNIX_EPOCH + Duration::from_secs(second);
        let written = (0..1_000).filter(|_| denials.admit(at(7)) == Sampled::Write).count();
        assert_eq!(written, 100);
        assert_eq!(denials.admit(at(6)), Sampled::LeftOut { first: false }, "an earlier second opens no new budget");
        let mut out = Vec::new();
        denials.report(LogFormat::Json, &mut out, at(7), false);
        assert!(out.is_empty(), "the second is not over");
        denials.report(LogFormat::Json, &mut out, at(8), false);
        denials.report(LogFormat::Json, &mut out, at(9), true);
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&line["event_type"], &line["left_out"]), (&"access.denied.left_out".into(), &901.into()));
        assert_eq!(denials.admit(at(8)), Sampled::Write, "the next second has its own budget");
    }
}
