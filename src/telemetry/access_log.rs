//! One line for each request (and one for its audit event, if it is one): formatted by the worker that served it, written by a thread of its own.
//!
//! A worker appends to a buffer that only it and the writer thread know, so a slow reader of the log slows no request:
//! when the buffer is full, lines are dropped and counted. Lines are never torn, whatever is dropped.

use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::audit::Denials;
use super::output::Stdout;
use super::shard::lock;
use super::tracing::LogFormat;
use crate::reason::Reason;

/// The longest that a line waits for the writer.
const FLUSH_INTERVAL: Duration = Duration::from_millis(50);
/// How long the number of denials that were left out waits to be told.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// A buffer this large wakes the writer at once.
const FLUSH_BYTES: usize = 64 * 1024;
/// A buffer this large takes no more lines.
const MAX_BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// What is longer in a request is cut in the log.
const MAX_FIELD_BYTES: usize = 2 * 1024;
/// How long [`AccessLog::close`] waits for a reader that does not read.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// What became of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessDecision {
    /// It was let through, and the upstream (or doorward itself) answered.
    Allow,
    /// It was refused.
    Deny,
}

/// What a request's line tells. A field that does not apply is `None` (`null` in the log) or empty.
#[derive(Debug, Clone, Copy)]
pub struct AccessRecord<'a> {
    /// When the request's head had been read.
    pub time: SystemTime,
    /// The id that is also in `X-Request-Id`.
    pub request_id: &'a str,
    /// The trace id of `traceparent`, 32 hex digits.
    pub trace_id: Option<&'a str>,
    /// The policy's service.
    pub service: Option<&'a str>,
    /// The host asked for, without its port; raw if it was refused.
    pub host: Option<&'a [u8]>,
    /// The method, raw.
    pub method: &'a [u8],
    /// The cleaned path, or the raw target if it was refused. From the first `?` on it is left out here, so that a raw
    /// target may be handed in whole; it is cut after 2 KiB.
    pub path: &'a [u8],
    /// The policy's path pattern.
    pub route: Option<&'a str>,
    /// The status that was answered.
    pub status: u16,
    /// Let through or refused.
    pub decision: AccessDecision,
    /// Why it was refused, or (`decision` being allow) why it failed afterwards.
    pub reason: Option<Reason>,
    /// Why it would have been refused, had report-only mode not let it through.
    pub would_deny: Option<Reason>,
    /// The requirement of the route.
    pub permission: Option<&'a str>,
    /// The caller.
    pub subject: Option<&'a str>,
    /// The caller's role keys, separated by commas as in `X-User-Roles`; an array in the log.
    pub roles: &'a str,
    /// The caller's memberships, separated by commas as in `X-User-Memberships`; an array in the log.
    pub memberships: &'a str,
    /// The caller's session.
    pub session: Option<&'a str>,
    /// From the request's head to the last byte of its answer.
    pub duration: Duration,
    /// What the upstream took, if it was asked.
    pub upstream: Option<Duration>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// The client's address, behind trusted proxies too.
    pub peer: Option<IpAddr>,
}

/// The log: its writer thread, and the buffers that it empties.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    format: LogFormat,
    dropped: Arc<AtomicU64>,
    buffers: Mutex<Vec<Arc<Mutex<Buffer>>>>,
    signal: Mutex<Signal>,
    changed: Condvar,
    denials: Denials,
}

#[derive(Debug, Default, Clone, Copy)]
struct Signal {
    waiting_lines: bool,
    urgent: bool,
    closing: bool,
    done: bool,
}

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    stamp: Stamp,
    closed: bool,
}

impl AccessLog {
    /// Starts the writer thread on `output`. Lines that are lost are counted on `dropped`
    /// (`Metrics::log_dropped`). `format` is what [`LogFormat::resolve`] made of the setting.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
    pub fn start(format: LogFormat, output: Box<dyn Write + Send>, dropped: Arc<AtomicU64>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            format,
            dropped,
            buffers: Mutex::default(),
            signal: Mutex::default(),
            changed: Condvar::new(),
            denials: Denials::default(),
        });
        let writer = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run(output))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// [`AccessLog::start`] on the standard output.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started, or there is no descriptor left.
    pub fn to_stdout(format: LogFormat, dropped: Arc<AtomicU64>) -> io::Result<Self> {
        Self::start(format, Box::new(Stdout::get()?), dropped)
    }

    /// A buffer for a worker thread.
    #[must_use]
    pub fn worker(&self) -> AccessSink {
        let buffer = Arc::new(Mutex::new(Buffer::default()));
        lock(&self.shared.buffers).push(Arc::clone(&buffer));
        // After the push: a log that closes in between either sees the buffer in its list or is seen closing here.
        if lock(&self.shared.signal).closing {
            lock(&buffer).closed = true;
        }
        AccessSink { shared: Arc::clone(&self.shared), buffer }
    }

    /// Writes what is waiting and ends the thread. Lines that come later are dropped and counted. Blocks the calling
    /// thread, and gives up after 5 s if nobody reads the output.
    pub fn close(&self) {
        let Some(thread) = lock(&self.thread).take() else { return };
        let mut signal = lock(&self.shared.signal);
        signal.closing = true;
        self.shared.changed.notify_all();
        let waited = self.shared.changed.wait_timeout_while(signal, CLOSE_PATIENCE, |signal| !signal.done);
        let done = waited.unwrap_or_else(PoisonError::into_inner).0.done;
        if done {
            // The thread's only remaining act is to return; if it panicked, there is nothing left to flush.
            let _ = thread.join();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.close();
    }
}

/// A worker's end of the log.
#[derive(Debug, Clone)]
pub struct AccessSink {
    shared: Arc<Shared>,
    buffer: Arc<Mutex<Buffer>>,
}

impl AccessSink {
    /// Appends the request's line, or drops it if the buffer is full or the log closed.
    pub fn write(&self, record: &AccessRecord<'_>) {
        self.append(|format, out, stamp| match format {
            LogFormat::Pretty => pretty_line(out, stamp, record),
            LogFormat::Json | LogFormat::Auto => json_line(out, stamp, record),
        });
    }

    /// Appends what `line` writes, or drops it if the buffer is full or the log closed.
    pub(super) fn append(&self, line: impl FnOnce(LogFormat, &mut Vec<u8>, &mut Stamp)) {
        let mut buffer = lock(&self.buffer);
        if buffer.closed || buffer.bytes.len() >= MAX_BUFFER_BYTES {
            drop(buffer);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Buffer { bytes, stamp, .. } = &mut *buffer;
        let before = bytes.len();
        line(self.shared.format, bytes, stamp);
        let after = bytes.len();
        drop(buffer);
        let urgent = self.shared.format == LogFormat::Pretty || (before < FLUSH_BYTES && after >= FLUSH_BYTES);
        if before == 0 || urgent {
            let mut signal = lock(&self.shared.signal);
            signal.waiting_lines = true;
            signal.urgent |= urgent;
            drop(signal);
            self.shared.changed.notify_all();
        }
    }

    /// The denials of all workers.
    pub(super) fn denials(&self) -> &Denials {
        &self.shared.denials
    }

    /// Lets the writer look at what there is to report.
    pub(super) fn wake(&self) {
        lock(&self.shared.signal).waiting_lines = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn run(&self, mut output: Box<dyn Write + Send>) {
        let mut spare = Vec::new();
        loop {
            let closing = self.wait();
            // The list is copied, so that a new worker need not wait for a slow reader.
            let buffers = lock(&self.buffers).clone();
            for buffer in buffers {
                let mut held = lock(&buffer);
                held.closed = closing;
                std::mem::swap(&mut held.bytes, &mut spare);
                drop(held);
                self.put(&mut output, &spare);
                spare.clear();
                // A burst's buffer is given back, an ordinary one used again.
                spare.shrink_to(4 * FLUSH_BYTES);
            }
            self.denials.report(self.format, &mut spare, SystemTime::now(), closing);
            self.put(&mut output, &spare);
            spare.clear();
            // A broken output shows again, and is counted, with the next lines.
            let _ = output.flush();
            if closing {
                lock(&self.signal).done = true;
                self.changed.notify_all();
                return;
            }
        }
    }

    fn put(&self, output: &mut impl Write, lines: &[u8]) {
        if !lines.is_empty() && output.write_all(lines).is_err() {
            let lost = memchr::memchr_iter(b'\n', lines).count();
            self.dropped.fetch_add(u64::try_from(lost).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Waits for lines, then lets them gather for the flush interval unless somebody is in a hurry. Whether the log is
    /// closing.
    fn wait(&self) -> bool {
        let signal = lock(&self.signal);
        let idle = |signal: &mut Signal| !signal.waiting_lines && !signal.closing;
        let signal = if self.denials.any_left_out() {
            // Their number is told although nothing more may come.
            let waited = self.changed.wait_timeout_while(signal, REPORT_INTERVAL, idle);
            waited.unwrap_or_else(PoisonError::into_inner).0
        } else {
            self.changed.wait_while(signal, idle).unwrap_or_else(PoisonError::into_inner)
        };
        let waited =
            self.changed.wait_timeout_while(signal, FLUSH_INTERVAL, |signal| !signal.urgent && !signal.closing);
        let mut signal = waited.unwrap_or_else(PoisonError::into_inner).0;
        signal.waiting_lines = false;
        signal.urgent = false;
        signal.closing
    }
}

/// The second and the address that were formatted last: they are the same for thousands of lines.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    second: Option<u64>,
    text: String,
    address: Option<IpAddr>,
    address_text: String,
}

impl Stamp {
    /// Appends an address, which needs no escaping. Behind one proxy it is nearly always the last one's.
    fn write_address(&mut self, out: &mut Vec<u8>, address: IpAddr) {
        if self.address != Some(address) {
            self.address = Some(address);
            self.address_text = address.to_string();
        }
        out.extend_from_slice(self.address_text.as_bytes());
    }

    /// Appends RFC 3339 in UTC with milliseconds.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since_epoch.as_secs()) {
            self.second = Some(since_epoch.as_secs());
            let second = i64::try_from(since_epoch.as_secs()).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
            self.text = second.unwrap_or(jiff::Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%S").to_string();
        }
        out.extend_from_slice(self.text.as_bytes());
        out.push(b'.');
        decimal(out, u64::from(since_epoch.subsec_millis()), 3);
        out.push(b'Z');
    }
}

/// Appends the record as one line of JSON.
fn json_line(out: &mut Vec<u8>, stamp: &mut Stamp, record: &AccessRecord<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    stamp.write(out, record.time);
    out.extend_from_slice(b"\",\"request_id\":");
    json_string(out, record.request_id.as_bytes());
    for (key, value) in [
        (&b",\"trace_id\":"[..], record.trace_id.map(str::as_bytes)),
        (b",\"service\":", record.service.map(str::as_bytes)),
        (b",\"host\":", record.host.map(cut)),
        (b",\"method\":", Some(cut(record.method))),
        (b",\"path\":", Some(cut(without_query(record.path)))),
        (b",\"route\":", record.route.map(str::as_bytes)),
    ] {
        out.extend_from_slice(key);
        json_optional(out, value);
    }
    out.extend_from_slice(b",\"status\":");
    decimal(out, u64::from(record.status), 1);
    out.extend_from_slice(match record.decision {
        AccessDecision::Allow => b",\"decision\":\"allow\"",
        AccessDecision::Deny => b",\"decision\":\"deny\"",
    });
    for (key, value) in [
        (&b",\"reason\":"[..], record.reason.map(Reason::code)),
        (b",\"permission\":", record.permission),
        (b",\"subject\":", record.subject),
    ] {
        out.extend_from_slice(key);
        json_optional(out, value.map(str::as_bytes));
    }
    out.extend_from_slice(b",\"roles\":");
    json_array(out, record.roles);
    out.extend_from_slice(b",\"memberships\":");
    json_array(out, record.memberships);
    out.extend_from_slice(b",\"session\":");
    json_optional(out, record.session.map(str::as_bytes));
    out.extend_from_slice(b",\"duration_ms\":");
    milliseconds(out, record.duration);
    out.extend_from_slice(b",\"upstream_ms\":");
    match record.upstream {
        Some(duration) => milliseconds(out, duration),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"bytes_in\":");
    decimal(out, record.bytes_in, 1);
    out.extend_from_slice(b",\"bytes_out\":");
    decimal(out, record.bytes_out, 1);
    match record.peer {
        Some(peer) => {
            out.extend_from_slice(b",\"peer\":\"");
            stamp.write_address(out, peer);
            out.push(b'"');
        }
        None => out.extend_from_slice(b",\"peer\":null"),
    }
    if let Some(reason) = record.would_deny {
        out.extend_from_slice(b",\"would_deny\":");
        json_string(out, reason.code().as_bytes());
    }
    out.extend_from_slice(b"}\n");
}

/// Appends the record as a line for people: only what one looks at while trying things out.
fn pretty_line(out: &mut Vec<u8>, stamp: &mut Stamp, record: &AccessRecord<'_>) {
    stamp.write(out, record.time);
    out.push(b' ');
    terminal_safe(out, cut(record.method));
    out.push(b' ');
    terminal_safe(out, cut(without_query(record.path)));
    out.push(b' ');
    decimal(out, u64::from(record.status), 1);
    out.extend_from_slice(match record.decision {
        AccessDecision::Allow => b" allow",
        AccessDecision::Deny => b" deny",
    });
    for (name, value) in [
        (" reason=", record.reason.map(Reason::code)),
        (" would_deny=", record.would_deny.map(Reason::code)),
        (" route=", record.route),
        (" subject=", record.subject),
        (" request_id=", Some(record.request_id)),
    ] {
        if let Some(value) = value {
            out.extend_from_slice(name.as_bytes());
            terminal_safe(out, value.as_bytes());
        }
    }
    out.push(b' ');
    milliseconds(out, record.duration);
    out.extend_from_slice(b"ms\n");
}

fn without_query(target: &[u8]) -> &[u8] {
    memchr::memchr(b'?', target).and_then(|at| target.get(..at)).unwrap_or(target)
}

pub(super) fn cut(bytes: &[u8]) -> &[u8] {
    bytes.get(..MAX_FIELD_BYTES).unwrap_or(bytes)
}

pub(super) fn json_optional(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => json_string(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends a comma-separated list as an array of strings.
fn json_array(out: &mut Vec<u8>, list: &str) {
    out.push(b'[');
    for (index, item) in list.split(',').filter(|item| !item.is_empty()).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json_string(out, item.as_bytes());
    }
    out.push(b']');
}

/// Appends a JSON string (RFC 8259, section 7). Bytes that are not UTF-8 become U+FFFD.
pub(super) fn json_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    // Nearly everything is plain ASCII; the test is cheaper than walking UTF-8.
    // Without an early end it is a handful of vector instructions.
    if bytes.iter().fold(true, |plain, byte| plain & (matches!(byte, b' '..=b'~') & (*byte != b'"') & (*byte != b'\\')))
    {
        out.extend_from_slice(bytes);
    } else {
        for chunk in bytes.utf8_chunks() {
            json_escaped(out, chunk.valid().as_bytes());
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{FFFD}".as_bytes());
            }
        }
    }
    out.push(b'"');
}

fn json_escaped(out: &mut Vec<u8>, valid: &[u8]) {
    for byte in valid {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            // Writing to a Vec cannot fail.
            0..=0x1f => drop(write!(out, "\\u{byte:04x}")),
            _ => out.push(*byte),
        }
    }
}

/// Appends printable ASCII as it is and the rest escaped: a path must not steer the terminal of who reads the log.
pub(super) fn terminal_safe(out: &mut Vec<u8>, bytes: &[u8]) {
    // `escape_ascii` would escape quotes too, which are harmless here and common nowhere.
    out.extend(bytes.escape_ascii());
}

/// Appends a number in decimal, with leading zeros up to `width` digits.
pub(super) fn decimal(out: &mut Vec<u8>, number: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut rest = number;
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        start -= 1;
        if rest == 0 {
            break;
        }
    }
    let start = start.min(digits.len().saturating_sub(width));
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
}

/// Appends a duration in milliseconds with three decimals.
fn milliseconds(out: &mut Vec<u8>, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    decimal(out, micros / 1000, 1);
    out.push(b'.');
    decimal(out, micros % 1000, 3);
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::mpsc;

    const KEYS: &str = "time request_id trace_id service host method path route status decision reason permission subject \
        roles memberships session duration_ms upstream_ms bytes_in bytes_out peer";

    fn record<'a>() -> AccessRecord<'a> {
        AccessRecord {
            time: UNIX_EPOCH + Duration::from_millis(1_782_172_799_042),
            request_id: "0197",
            trace_id: Some("0af7651916cd43dd8448eb211c80319c"),
            service: Some("oms"),
            host: Some(b"shop.example"),
            method: b"GET",
            path: b"/orders/7",
            route: Some("/orders/{id}"),
            status: 200,
            decision: AccessDecision::Allow,
            reason: None,
            would_deny: None,
            permission: Some("order:view"),
            subject: Some("u1"),
            roles: "ROLE_A,ROLE_B",
            memberships: "oms=FREE",
            session: None,
            duration: Duration::from_micros(1_034),
            upstream: Some(Duration::from_micros(12)),
            bytes_in: 0,
            bytes_out: u64::MAX,
            peer: Some([192, 0, 2, 7].into()),
        }
    }

    fn line(record: &AccessRecord<'_>) -> String {
        let mut out = Vec::new();
        json_line(&mut out, &mut Stamp::default(), record);
        String::from_utf8(out).unwrap()
    }

    fn pretty(record: &AccessRecord<'_>) -> String {
        let mut out = Vec::new();
        pretty_line(&mut out, &mut Stamp::default(), record);
        String::from_utf8(out).unwrap()
    }

    /// An output that a test can read, and that blocks while its gate is locked.
    #[derive(Clone, Default)]
    struct Output {
        written: Arc<Mutex<Vec<u8>>>,
        gate: Arc<Mutex<()>>,
        broken: bool,
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            drop(lock(&self.gate));
            if self.broken {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            lock(&self.written).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Output {
        fn text(&self) -> String {
            String::from_utf8(lock(&self.written).clone()).unwrap()
        }
    }

    #[test]
    fn a_line_has_the_keys_of_the_spec_in_their_order() {
        assert_eq!(
            line(&record()),
            "{\"time\":\"2026-06-22T23:59:59.042Z\",\"request_id\":\"0197\",\
             \"trace_id\":\"0af7651916cd43dd8448eb211c80319c\",\"service\":\"oms\",\"host\":\"shop.example\",\
             \"method\":\"GET\",\"path\":\"/orders/7\",\"route\":\"/orders/{id}\",\"status\":200,\"decision\":\"allow\",\
             \"reason\":null,\"permission\":\"order:view\",\"subject\":\"u1\",\"roles\":[\"ROLE_A\",\"ROLE_B\"],\
             \"memberships\":[\"oms=FREE\"],\"session\":null,\"duration_ms\":1.034,\"upstream_ms\":0.012,\"bytes_in\":0,\
             \"bytes_out\":18446744073709551615,\"peer\":\"192.0.2.7\"}\n"
        );
        let text = line(&record());
        let keys: Vec<_> =
            KEYS.split_ascii_whitespace().map(|key| text.find(&format!("\"{key}\":")).unwrap()).collect();
        assert!(keys.is_sorted());
        let parsed: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed.len(), KEYS.split_ascii_whitespace().count());
    }

    #[test]
    fn what_does_not_apply_is_null_or_empty() {
        let bare = AccessRecord {
            trace_id: None,
            service: None,
            host: None,
            route: None,
            reason: Some(Reason::NoRoute),
            would_deny: Some(Reason::PermissionMissing),
            decision: AccessDecision::Deny,
            permission: None,
            subject: None,
            roles: "",
            memberships: "",
            upstream: None,
            peer: None,
            ..record()
        };
        let parsed: serde_json::Value = serde_json::from_str(&line(&bare)).unwrap();
        for key in ["trace_id", "service", "host", "route", "permission", "subject", "session", "upstream_ms", "peer"] {
            assert!(parsed[key].is_null(), "{key}");
        }
        assert_eq!(parsed["roles"], serde_json::json!([]));
        assert_eq!(parsed["reason"], "no_route");
        assert_eq!(parsed["would_deny"], "permission_missing");
        assert_eq!(parsed["decision"], "deny");
    }

    #[test]
    fn the_query_is_never_logged_and_the_path_is_cut() {
        let asked = AccessRecord { path: b"/a\x01b?access_token=secret", ..record() };
        assert!(!line(&asked).contains("secret") && !pretty(&asked).contains("secret"));
        assert!(line(&asked).contains("\"path\":\"/a\\u0001b\""));
        let long = vec![b'a'; 100_000];
        assert!(line(&AccessRecord { path: &long, host: Some(&long), method: &long, ..record() }).len() < 8 * 1024);
    }

    #[test]
    fn a_path_cannot_steer_a_terminal() {
        let text = pretty(&AccessRecord { path: b"/\x1b[2J\n\xc2\x9b1m", subject: Some("\u{9b}\r"), ..record() });
        assert!(text.trim_end_matches('\n').bytes().all(|byte| matches!(byte, b' '..=b'~')), "{text:?}");
    }

    #[test]
    fn the_second_is_formatted_anew_when_it_changes() {
        let mut stamp = Stamp::default();
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (999, "1970-01-01T00:00:00.999Z"),
            (1_000, "1970-01-01T00:00:01.000Z"),
            (951_782_400_007, "2000-02-29T00:00:00.007Z"),
        ] {
            let mut out = Vec::new();
            stamp.write(&mut out, UNIX_EPOCH + Duration::from_millis(millis));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn strings_read_back_as_serde_json_writes_them(text in any::<String>()) {
            let mut out = Vec::new();
            json_string(&mut out, text.as_bytes());
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn any_bytes_make_one_line_of_json(
            path in prop::collection::vec(any::<u8>(), 0..64),
            host in prop::collection::vec(any::<u8>(), 0..16),
            subject in any::<String>(),
            micros in any::<u32>(),
        ) {
            let made = AccessRecord {
                path: &path, host: Some(&host), method: &host, subject: Some(&subject),
                duration: Duration::from_micros(micros.into()), ..record()
            };
            let text = line(&made);
            prop_assert_eq!(text.find('\n'), Some(text.len() - 1));
            let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(parsed["path"].as_str().unwrap(), String::from_utf8_lossy(without_query(&path)));
            prop_assert_eq!(parsed["subject"].as_str().unwrap(), subject);
            prop_assert_eq!(parsed["duration_ms"].as_f64().unwrap(), f64::from(micros) / 1000.0);
        }

        #[test]
        fn numbers_are_decimal(number in any::<u64>(), width in 1_usize..6) {
            let mut out = Vec::new();
            decimal(&mut out, number, width);
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("{number:0width$}"));
        }
    }

    #[test]
    fn lines_of_many_workers_arrive_whole_and_close_flushes_the_last() {
        let output = Output::default();
        let dropped = Arc::new(AtomicU64::new(0));
        let log = AccessLog::start(LogFormat::Json, Box::new(output.clone()), Arc::clone(&dropped)).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let sink = log.worker();
                scope.spawn(move || (0..2_000).for_each(|_| sink.write(&record())));
            }
        });
        let late = log.worker();
        log.close();
        assert_eq!(output.text(), line(&record()).repeat(8_000));
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
        late.write(&record());
        log.worker().write(&record());
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_line_arrives_without_another_one_pushing_it() {
        let output = Output::default();
        let log = AccessLog::start(LogFormat::Json, Box::new(output.clone()), Arc::default()).unwrap();
        let sink = log.worker();
        for lines in 1..4 {
            sink.write(&record());
            let deadline = std::time::Instant::now() + Duration::from_secs(30);
            while output.text().lines().count() < lines {
                assert!(std::time::Instant::now() < deadline, "line {lines} never came");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_and_neither_memory_nor_time() {
        let output = Output::default();
        let stalled = lock(&output.gate);
        let dropped = Arc::new(AtomicU64::new(0));
        let log = AccessLog::start(LogFormat::Json, Box::new(output.clone()), Arc::clone(&dropped)).unwrap();
        let sink = log.worker();
        let path = vec![b'a'; MAX_FIELD_BYTES];
        let big = AccessRecord { path: &path, ..record() };
        let sent = 3 * MAX_BUFFER_BYTES / line(&big).len();
        let (finished, waiting) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..sent).for_each(|_| sink.write(&big));
                finished.send(()).unwrap();
            });
            waiting.recv_timeout(Duration::from_secs(30)).unwrap();
        });
        assert!(lock(&sink.buffer).bytes.len() < MAX_BUFFER_BYTES + 8 * 1024);
        drop(stalled);
        log.close();
        let lost = usize::try_from(dropped.load(Ordering::Relaxed)).unwrap();
        assert!(lost > 0);
        assert_eq!(output.text(), line(&big).repeat(sent - lost));
    }

    #[test]
    fn lines_for_a_closed_pipe_are_counted() {
        let output = Output { broken: true, ..Output::default() };
        let dropped = Arc::new(AtomicU64::new(0));
        let log = AccessLog::start(LogFormat::Json, Box::new(output), Arc::clone(&dropped)).unwrap();
        let sink = log.worker();
        (0..3).for_each(|_| sink.write(&record()));
        log.close();
        assert_eq!(dropped.load(Ordering::Relaxed), 3);
    }

    /// `cargo rustc --lib --profile test -- -C opt-level=3`, then the test binary with `--ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    #[expect(clippy::print_stderr, reason = "a measurement")]
    fn cost_of_one_line() {
        let log = AccessLog::start(LogFormat::Json, Box::new(io::sink()), Arc::default()).unwrap();
        let sink = log.worker();
        let start = std::time::Instant::now();
        (0..1_000_000).for_each(|_| sink.write(&record()));
        eprintln!("{} ns a line", start.elapsed().as_nanos() / 1_000_000);
    }
}
