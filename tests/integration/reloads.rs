//! Policies and roles that change while requests are decided (SPEC 4.3, issue 3 no. 2): no request fails, and none is decided by a
//! state that was never written.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::{Doorward, Issuer, Upstream, doorward, eventually};

const RELOADS: usize = 200;
const LONG: Duration = Duration::from_secs(30);

/// Version `n` of the policy asks for permission `n`.
fn policy(n: usize) -> String {
    format!(
        "version: 1\nservice: oms\nupstream: oms\npaths:\n  /item: {{ get: 'item:p{n}' }}\n  /public: {{ get: public }}\n  /only-in/{n}: {{ get: public }}\n"
    )
}

/// Version `n` of the roles: who is allowed holds permission `n` alone; who is forbidden holds those of the versions before and
/// after. So whatever is decided by two versions at once is decided wrongly.
fn roles(n: usize) -> String {
    let (before, after) = (n - 1, n + 1);
    format!(
        "version: 1\npermissions: {{ oms: ['item:p{before}', 'item:p{n}', 'item:p{after}'] }}\nroles:\n  ROLE_ALLOWED: {{ permissions: ['item:p{n}'] }}\n  ROLE_FORBIDDEN: {{ permissions: ['item:p{before}', 'item:p{after}'] }}\n"
    )
}

/// A folder as Kubernetes mounts a ConfigMap: the files are links into `..data`, itself a link that is replaced whole.
struct ConfigMap(PathBuf);

impl ConfigMap {
    fn mount(folder: &Path, files: &[(&str, String)]) -> Self {
        let map = Self(folder.join("mounted"));
        std::fs::create_dir(&map.0).unwrap();
        map.publish("first", files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), map.0.join(name)).unwrap();
        }
        map
    }

    fn publish(&self, version: &str, files: &[(&str, String)]) {
        let data = format!("..{version}");
        std::fs::create_dir(self.0.join(&data)).unwrap();
        for (name, text) in files {
            std::fs::write(self.0.join(&data).join(name), text).unwrap();
        }
        symlink(&data, self.0.join("..data_tmp")).unwrap();
        let before = std::fs::read_link(self.0.join("..data"));
        std::fs::rename(self.0.join("..data_tmp"), self.0.join("..data")).unwrap();
        if let Ok(before) = before {
            std::fs::remove_dir_all(self.0.join(before)).unwrap();
        }
    }
}

/// Asks for a reading again and again, also while files are being replaced.
struct Hangups(Child);

impl Hangups {
    fn begin(running: &Doorward) -> Self {
        let script = "while kill -HUP \"$0\" 2>/dev/null; do sleep 0.01; done";
        let child = Command::new("sh").args(["-c", script, &running.id().to_string()]).stdin(Stdio::null()).spawn();
        Self(child.expect("there is a shell"))
    }
}

impl Drop for Hangups {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the clients saw.
#[derive(Debug, Default)]
struct Seen {
    answered: AtomicUsize,
    wrong: Mutex<Vec<String>>,
    over: AtomicBool,
}

/// Asks on one connection until it is over; every answer must have this status.
fn hammer(seen: &Seen, running: &Doorward, request: &str, status: u16) {
    let mut connection = running.connect();
    while !seen.over.load(Ordering::SeqCst) {
        match connection.try_send(request.as_bytes()).and_then(|()| connection.try_response("GET")) {
            Ok(response) if response.status == status => {
                seen.answered.fetch_add(1, Ordering::SeqCst);
            }
            Ok(response) => seen.wrong.lock().unwrap().push(format!("not {status}: {}", response.text())),
            Err(error) => return seen.wrong.lock().unwrap().push(format!("not {status}: {error}")),
        }
    }
}

#[test]
fn reloads_under_load_fail_no_request_and_are_never_half_in_force() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let folder = tempfile::tempdir().unwrap();
    let files = |n: usize| [("policy.yaml", policy(n)), ("roles.yaml", roles(n))];
    let map = ConfigMap::mount(folder.path(), &files(1));
    let mounted = |name: &str| map.0.join(name).to_str().unwrap().to_owned();
    let running = doorward()
        .issuer(&issuer)
        .upstream(&upstream)
        .setting("gateway.policies", vec![mounted("policy.yaml")])
        .setting("roles.file", mounted("roles.yaml"))
        .setting("gateway.workers", 2)
        .setting("log.access", false)
        .setting("events.sinks", Vec::<String>::new())
        .start();
    let seen = Seen::default();
    let request = |target: &str, role: &str| {
        let token = issuer.with_roles("u-1", &[role]);
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n")
    };
    let clients = [
        (request("/item", "ROLE_ALLOWED"), 200),
        (request("/item", "ROLE_ALLOWED"), 200),
        (request("/item", "ROLE_FORBIDDEN"), 403),
        (request("/item", "ROLE_FORBIDDEN"), 403),
        (request("/public", "ROLE_FORBIDDEN"), 200),
    ];
    std::thread::scope(|scope| {
        for (request, status) in &clients {
            let (seen, running) = (&seen, &running);
            scope.spawn(move || hammer(seen, running, request, *status));
        }
        let hangups = Hangups::begin(&running);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| change(&running, &map, files)));
        drop(hangups);
        seen.over.store(true, Ordering::SeqCst);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    let wrong = seen.wrong.lock().unwrap();
    let answered = seen.answered.load(Ordering::SeqCst);
    assert!(
        wrong.is_empty() && answered > RELOADS,
        "{} of {answered} are wrong: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(5)]
    );
}

/// Publishes version after version, every fourth of them broken in one way or another, and waits until each is known.
fn change(running: &Doorward, map: &ConfigMap, files: impl Fn(usize) -> [(&'static str, String); 2]) {
    let in_force = |n: usize| running.get(&format!("/only-in/{n}")).status == 200;
    let refused = || running.metric("doorward_policy_reload_failed", &[]) == 1.0;
    let mut last = 1;
    for n in 2..RELOADS + 2 {
        let [mut policy, mut roles] = files(n);
        match n % 16 {
            3 => policy.1 = policy.1.replace("get: public", "get: [public"),
            7 => policy.1 = policy.1.replace(&format!("item:p{n}"), "item:unknown"),
            11 => roles.1.truncate(roles.1.len() / 2),
            15 => roles.1 = roles.1.replace("permissions:", "permission:"),
            _ => {
                // Now and then a plain rewrite of one file, in place, which changes nothing in what is allowed: beside the roles
                // of a version that was refused it would.
                if n % 5 == 0 && last == n - 1 {
                    std::fs::write(map.0.join("policy.yaml"), format!("# written in place\n{}", files(last)[0].1))
                        .unwrap();
                }
                map.publish(&n.to_string(), &[policy, roles]);
                eventually(&format!("version {n} is in force\n{}", running.stdout()), LONG, || {
                    in_force(n).then_some(())
                });
                last = n;
                continue;
            }
        }
        map.publish(&n.to_string(), &[policy, roles]);
        eventually(&format!("version {n} is refused"), LONG, || refused().then_some(()));
        assert!(in_force(last), "the last good version stays in force");
    }
}
