//! One line for each request: formatted by the worker that served it, written by a thread of its own.
//!
//! A worker appends to a buffer that only it and the writer thread know, so a slow reader of the log slows no request:
//! when the buffer is full, lines are dropped and counted. Lines are never torn, whatever is dropped.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::shard::lock;
use super::tracing::LogFormat;
use crate::reason::Reason;

/// The longest that a line waits for the writer.
const FLUSH_INTERVAL: Duration = Duration::from_millis(50);
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
    pub peer: Option<std::net::IpAddr>,
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
        });
        let writer = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run(output))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// [`AccessLog::start`] on the standard output.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
    pub fn to_stdout(format: LogFormat, dropped: Arc<AtomicU64>) -> io::Result<Self> {
        Self::start(format, Box::new(io::stdout()), dropped)
    }

    /// A buffer for a worker thread.
    #[must_use]
    pub fn worker(&self) -> AccessSink {
        let buffer = Arc::new(Mutex::new(Buffer::default()));
        lock(&self.shared.buffers).push(Arc::clone(&buffer));
        AccessSink { shared: Arc::clone(&self.shared), buffer }
    }

    /// Writes what is waiting and ends the thread. Lines that come later are dropped and counted. Gives up after 5 s
    /// if nobody reads the output.
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
        let mut buffer = lock(&self.buffer);
        if buffer.closed || buffer.bytes.len() >= MAX_BUFFER_BYTES {
            drop(buffer);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Buffer { bytes, stamp, .. } = &mut *buffer;
        let before = bytes.len();
        match self.shared.format {
            LogFormat::Pretty => pretty_line(bytes, stamp, record),
            LogFormat::Json | LogFormat::Auto => json_line(bytes, stamp, record),
        }
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
                if !spare.is_empty() && output.write_all(&spare).is_err() {
                    let lost = memchr::memchr_iter(b'\n', &spare).count();
                    self.dropped.fetch_add(u64::try_from(lost).unwrap_or(u64::MAX), Ordering::Relaxed);
                }
                spare.clear();
                // A burst's buffer is given back, an ordinary one used again.
                spare.shrink_to(4 * FLUSH_BYTES);
            }
            // A broken output shows again, and is counted, with the next lines.
            let _ = output.flush();
            if closing {
                lock(&self.signal).done = true;
                self.changed.notify_all();
                return;
            }
        }
    }

    /// Waits for lines, then lets them gather for the flush interval unless somebody is in a hurry. Whether the log is
    /// closing.
    fn wait(&self) -> bool {
        let signal = lock(&self.signal);
        let waited = self.changed.wait_while(signal, |signal| !signal.waiting_lines && !signal.closing);
        let signal = waited.unwrap_or_else(PoisonError::into_inner);
        let waited =
            self.changed.wait_timeout_while(signal, FLUSH_INTERVAL, |signal| !signal.urgent && !signal.closing);
        let mut signal = waited.unwrap_or_else(PoisonError::into_inner).0;
        signal.waiting_lines = false;
        signal.urgent = false;
        signal.closing
    }
}

/// The second that was formatted last: it is the same for thousands of lines.
#[derive(Debug, Default)]
struct Stamp {
    second: Option<u64>,
    text: String,
}

impl Stamp {
    /// Appends RFC 3339 in UTC with milliseconds.
    fn write(&mut self, out: &mut Vec<u8>, time: SystemTime) {
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
        // An address needs no escaping, and writing to a Vec cannot fail.
        Some(peer) => drop(write!(out, ",\"peer\":\"{peer}\"")),
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

fn cut(bytes: &[u8]) -> &[u8] {
    bytes.get(..MAX_FIELD_BYTES).unwrap_or(bytes)
}

fn json_optional(out: &mut Vec<u8>, value: Option<&[u8]>) {
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
fn json_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    // Nearly everything is plain ASCII; the test is cheaper than walking UTF-8.
    if bytes.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
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
fn terminal_safe(out: &mut Vec<u8>, bytes: &[u8]) {
    // `escape_ascii` would escape quotes too, which are harmless here and common nowhere.
    out.extend(bytes.escape_ascii());
}

/// Appends a number in decimal, with leading zeros up to `width` digits.
fn decimal(out: &mut Vec<u8>, number: u64, width: usize) {
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
