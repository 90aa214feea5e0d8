//! The standard output as the long-running program writes it: by threads that nobody waits for.
//!
//! Whoever reads the log may stop reading. Then a write blocks, and with `std::io::stdout` every thread that wants its
//! lock blocks too, the one that ends the program among them. So the file is written here, behind a lock of its own, by
//! threads that do nothing else; what they cannot keep up with is lost and counted.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::shard::lock;

/// Messages that wait for a slow reader; what comes on top is lost.
const MOST_WAITING: usize = 1024;

/// The standard output. Lines of several writers never mix.
#[derive(Debug, Clone)]
pub struct Stdout(Arc<Mutex<File>>);

impl Stdout {
    /// The one of this process; a second descriptor for the same file.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn get() -> io::Result<Self> {
        static SHARED: OnceLock<Stdout> = OnceLock::new();
        if let Some(shared) = SHARED.get() {
            return Ok(shared.clone());
        }
        let made = Self(Arc::new(Mutex::new(File::from(io::stdout().as_fd().try_clone_to_owned()?))));
        Ok(SHARED.get_or_init(|| made).clone())
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).write(bytes)
    }

    /// All of it under one lock.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        lock(&self.0).write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Messages on their way to an output that may be slow.
#[derive(Debug, Clone)]
pub struct Messages(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Vec<u8>>,
    writing: bool,
    lost: u64,
}

impl Messages {
    /// Starts the thread that writes to `output`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let messages = Self(Arc::default());
        let shared = Arc::clone(&messages.0);
        std::thread::Builder::new().name("messages".to_owned()).spawn(move || shared.run(output))?;
        Ok(messages)
    }

    /// Waits until all is written, but no longer than `patience`.
    pub fn flush_within(&self, patience: Duration) {
        let queue = lock(&self.0.queue);
        let unwritten = |queue: &mut Queue| queue.writing || !queue.waiting.is_empty();
        drop(self.0.changed.wait_timeout_while(queue, patience, unwritten));
    }
}

impl Write for Messages {
    /// Takes one message, or loses it. Never waits for the output.
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        let mut queue = lock(&self.0.queue);
        if queue.waiting.len() < MOST_WAITING {
            queue.waiting.push_back(message.to_owned());
            drop(queue);
            self.0.changed.notify_all();
        } else {
            queue.lost += 1;
        }
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn run(&self, mut output: impl Write) {
        loop {
            let queue = lock(&self.queue);
            let mut queue = self
                .changed
                .wait_while(queue, |queue| queue.waiting.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            let mut text: Vec<u8> = queue.waiting.drain(..).flatten().collect();
            if queue.lost > 0 {
                let lost = std::mem::take(&mut queue.lost);
                let _ = writeln!(
                    text,
                    r#"{{"level":"WARN","message":"messages were lost: the log's reader was too slow","lost":{lost}}}"#
                );
            }
            queue.writing = true;
            drop(queue);
            // A message that nobody can read has nowhere else to go.
            let _ = output.write_all(&text);
            lock(&self.queue).writing = false;
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::time::Instant;

    #[derive(Clone, Default)]
    struct Stalled(Arc<Mutex<Vec<u8>>>);

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stalls_holds_nobody_up_and_is_told_of_the_loss() {
        let output = Stalled::default();
        let stall = lock(&output.0);
        let mut messages = Messages::start(output.clone()).unwrap();
        let began = Instant::now();
        for number in 0..5 * MOST_WAITING {
            messages.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        messages.flush_within(Duration::from_millis(10));
        assert!(began.elapsed() < Duration::from_secs(30));
        drop(stall);
        messages.flush_within(Duration::from_secs(30));
        let text = String::from_utf8(lock(&output.0).clone()).unwrap();
        assert!(text.starts_with("0\n1\n") && text.contains("messages were lost"), "{text}");
    }
}
