//! A program that is started, read and stopped.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::eventually;

/// How long a part may take until it serves, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running program in a process group of its own. Dropping it ends the whole group, and shows what it wrote if the test
/// is failing.
#[derive(Debug)]
pub(super) struct Part {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    /// What it may write to.
    _folder: TempDir,
}

impl Part {
    /// Starts a program in an empty folder, which is also its home.
    pub(super) fn start(name: &str, mut command: Command) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        command.current_dir(folder.path()).env("HOME", folder.path());
        // The parts written here end when their input does, so nothing is left behind even by a test that was killed.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| missing(name, &error));
        let lines = Arc::default();
        collect(child.stdout.take().expect("stdout is piped"), &lines);
        collect(child.stderr.take().expect("stderr is piped"), &lines);
        Self { name: name.to_owned(), child, lines, _folder: folder }
    }

    /// What it wrote, line by line.
    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits until `look` finds something.
    pub(super) fn until<T>(&mut self, what: &str, mut look: impl FnMut(&[String]) -> Option<T>) -> T {
        eventually(&format!("{}: {what}", self.name), START_LIMIT, || {
            let found = look(&self.lines());
            let ended = if found.is_none() { self.child.try_wait().unwrap() } else { None };
            assert!(ended.is_none(), "{} ended before {what} ({ended:?}):\n{}", self.name, self.lines().join("\n"));
            found
        })
    }

    /// Waits for it to end by itself.
    pub(super) fn wait(&mut self, limit: Duration) -> ExitStatus {
        eventually(&format!("{} ends", self.name), limit, || self.child.try_wait().unwrap())
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn signal(&self, name: &str) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args([name, "--", &group]).stderr(Stdio::null()).status();
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("── {} wrote:\n{}\n──", self.name, self.lines().join("\n"));
        }
        // Nobody is waited for politely: a part keeps nothing that is worth saving. The child is reaped only after its
        // group was ended, so the number cannot have become somebody else's.
        self.signal("-KILL");
        let _ = self.child.wait();
    }
}

/// A command of the Python parts: `tests/parts/SCRIPT`.
pub(super) fn python(script: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(root.join("target/parts/venv/bin/python3"));
    // No .pyc files beside the scripts.
    command.arg("-B").arg(root.join("tests/parts").join(script)).env_remove("PYTHONPATH");
    command
}

/// What a command that has ended left behind.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Done {
    /// Its output, if it succeeded.
    pub(super) fn text(self) -> String {
        assert!(self.status.success(), "{self:?}");
        self.stdout
    }

    /// Its output as JSON, if it succeeded.
    pub(super) fn json(self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"))
    }
}

/// Runs a command to its end.
pub(super) fn run(mut command: Command) -> Done {
    let name = PathBuf::from(command.get_program());
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| missing(&name.to_string_lossy(), &error));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Done { status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// Says what to do about a program that cannot be started.
pub(super) fn missing(name: &str, error: &std::io::Error) -> ! {
    panic!("{name} cannot be started ({error}): tests/run installs what these tests need")
}

fn collect(from: impl Read + Send + 'static, into: &Arc<Mutex<Vec<String>>>) {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            into.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
        }
    });
}
