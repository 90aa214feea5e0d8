//! The hands that revoke: the admin call, the control socket, the command line (SPEC 8, 10; T4, T16, T18, T21, T30, T36).

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::redis::Redis;
use crate::harness::{Builder, Doorward, Issuer, Response, Upstream, doorward, eventually};

const SOCKET: &str = "data/doorward.sock";
const PATIENCE: Duration = Duration::from_secs(20);

fn described(upstream: &Upstream, issuer: &Issuer) -> Builder {
    doorward().issuer_with(issuer, &[("admin", true.into())]).upstream(upstream)
}

fn started() -> (Doorward, Upstream, Issuer) {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    (described(&upstream, &issuer).start(), upstream, issuer)
}

/// A call over the control socket, as any HTTP client makes it.
fn over(socket: &Path, method: &str, target: &str, body: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).expect("the socket");
    let length = body.len();
    write!(stream, "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{text:?}"));
    let (_, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    (status, serde_json::from_str(body).unwrap_or_default())
}

/// `doorward ARGUMENTS` in the folder of a process, with its configuration.
fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(arguments).args(["--config", "doorward.toml"]).current_dir(folder).env_clear();
    command.stdin(Stdio::null());
    command
}

fn cli(running: &Doorward, arguments: &[&str]) -> Output {
    command(&running.path("."), arguments).output().unwrap()
}

#[track_caller]
fn good(output: &Output) -> String {
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn bad(output: &Output, code: i32) -> String {
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

fn revoke(running: &Doorward, token: &str, body: &Value) -> Response {
    running.admin_request("POST", "/api/revocations", Some(token), &body.to_string())
}

fn audit_of(running: &Doorward, actor: &str) -> Value {
    eventually(&format!("an audit event by {actor}"), PATIENCE, || {
        let lines = running.stdout();
        let mut parsed = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.find(|line| line["type"] == "audit" && line["actor"] == actor)
    })
}

#[test]
fn every_kind_of_entry_is_taken_and_refuses_what_it_names() {
    let (running, _upstream, issuer) = started();
    let administrator = issuer.with_roles("root", &["ROLE_SUPER_ADMIN"]);
    let token = |subject: &str, id: &str| issuer.token().claim("sub", subject).claim("jti", id).sign();
    let refused = |token: &str| running.get_as("/items", token).denial();
    let of_bob = token("bob", "t-1");
    assert_eq!(running.get_as("/items", &of_bob).status, 200);
    let answer = revoke(&running, &administrator, &json!({"jti": "t-1", "issuer": issuer.name}));
    assert_eq!((answer.status, &answer.json()["propagated"]), (200, &Value::Bool(true)), "{answer:?}");
    assert!(answer.json()["number"].is_u64(), "{answer:?}");
    assert_eq!(refused(&of_bob), (401, "revoked".into()));
    assert_eq!(running.get_as("/items", &token("bob", "t-2")).status, 200);
    assert_eq!(revoke(&running, &administrator, &json!({"disabled": "bob"})).status, 200);
    assert_eq!(refused(&token("bob", "t-2")), (401, "subject_disabled".into()));
    assert_eq!(revoke(&running, &administrator, &json!({"service": "oms"})).status, 200);
    assert_eq!(refused(&token("eve", "t-3")), (401, "revoked".into()));
    assert_eq!(revoke(&running, &administrator, &json!({"jti": "t-1"})).status, 200, "repeating is harmless");
    assert_eq!(revoke(&running, &administrator, &json!({"everything": true})).status, 200);
    assert_eq!(revoke(&running, &administrator, &json!({"jti": "t-9"})).denial(), (401, "revoked".into()), "them too");
}

#[test]
fn t18_a_revoked_key_is_refused_at_once_and_for_good() {
    let (mut running, _upstream, issuer) = started();
    let token = issuer.viewer();
    assert_eq!(running.get_as("/items", &token).status, 200);
    good(&cli(&running, &["revoke", "--key", "another", "--issuer", issuer.name]));
    assert_eq!(running.get_as("/items", &token).status, 200, "not of this key");
    good(&cli(&running, &["revoke", "--key", issuer.key_id, "--issuer", issuer.name]));
    assert_eq!(running.get_as("/items", &token).denial(), (401, "revoked".into()), "remembered tokens too");
    running.kill9();
    running.start_again();
    eventually("it is ready again", PATIENCE, || running.is_ready().then_some(()));
    assert_eq!(running.get_as("/items", &issuer.viewer()).denial(), (401, "revoked".into()));
}

#[test]
fn t36_who_may_revoke_may_not_grant() {
    let (running, _upstream, issuer) = started();
    let administrator = issuer.with_roles("root", &["ROLE_SUPER_ADMIN"]);
    for (body, pointer) in [
        (json!({"override": "eve", "roles": ["ROLE_SUPER_ADMIN"]}), "/override"),
        (json!({"keys": {"keys": []}}), "/keys"),
        (json!({"jti": "a", "issuer": "nobody"}), "/issuer"),
        (json!({"everything": 4_000_000_000_u32}), "/everything"),
        (json!({}), ""),
    ] {
        let answer = revoke(&running, &administrator, &body);
        assert_eq!((answer.status, &answer.json()["pointer"]), (422, &pointer.into()), "{answer:?}");
        assert!(!answer.json()["detail"].as_str().unwrap().is_empty());
    }
    let there = running.admin_request("POST", "/api/overrides", Some(&administrator), r#"{"override":"a","roles":[]}"#);
    assert_eq!(there.status, 403, "overrides are no call of the admin listener: {there:?}");
    let scoped = "version: 1\npermissions:\n  oms: [item:view, item:create, item:edit, item:delete, order:view, order:view-all]\n\
        roles:\n  ROLE_OMS_ADMIN:\n    scope: oms\n    permissions: ['*']\n\
        tiers:\n  oms: [{key: FREE, permissions: []}, {key: PREMIUM, permissions: []}]\n";
    let upstream = Upstream::echo();
    let running = described(&upstream, &issuer).roles(scoped).start();
    let scoped = issuer.with_roles("s", &["ROLE_OMS_ADMIN"]);
    let answer = revoke(&running, &scoped, &json!({"everything": true}));
    assert_eq!(answer.denial(), (403, "permission_missing".into()), "a role with a scope does not revoke for all");
}

#[test]
fn t21_report_mode_lets_nobody_revoke() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let running = described(&upstream, &issuer).setting("gateway.mode", "report").start();
    let without = running.admin_request("POST", "/api/revocations", None, r#"{"everything": true}"#);
    assert_eq!(without.denial(), (401, "missing_token".into()));
    let viewer = revoke(&running, &issuer.viewer(), &json!({"everything": true}));
    assert_eq!(viewer.denial(), (403, "permission_missing".into()));
}

#[test]
fn a_whole_token_is_revoked_by_its_id_if_its_signature_is_good() {
    let (running, _upstream, issuer) = started();
    let administrator = issuer.with_roles("root", &["ROLE_SUPER_ADMIN"]);
    let token = issuer.token().claim("jti", "t-7").sign();
    let answer = revoke(&running, &administrator, &json!({"token": token}));
    assert_eq!((answer.status, &answer.json()["entry"]["jti"]), (200, &"t-7".into()), "{answer:?}");
    assert_eq!(running.get_as("/items", &token).denial(), (401, "revoked".into()));
    let other = issuer.token().claim("jti", "t-8").sign();
    let forged = format!("{}.{}", other.rsplit_once('.').unwrap().0, token.rsplit_once('.').unwrap().1);
    let nameless = issuer.token().without("jti").sign();
    let expired = issuer.token().claim("jti", "t-6").claim("exp", crate::harness::now() - 3600).sign();
    for (bad, why) in [(&forged, "bad_signature"), (&nameless, "jti"), (&expired, "expired")] {
        let answer = revoke(&running, &administrator, &json!({"token": bad}));
        assert_eq!((answer.status, &answer.json()["pointer"]), (422, &"/token".into()), "{answer:?}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(why), "{answer:?}");
    }
    assert_eq!(running.get_as("/items", &other).status, 200);
    let told = format!("{}{}", running.stdout(), running.stderr());
    for part in [&token, &other, &nameless] {
        assert!(!told.contains(&part[..60]) && !told.contains(&part[part.len() - 20..]), "a token is in the log");
    }
}

#[test]
fn t04_enabling_revives_no_token() {
    let (running, _upstream, issuer) = started();
    let administrator = issuer.with_roles("root", &["ROLE_SUPER_ADMIN"]);
    let before = issuer.token().claim("sub", "alice").sign();
    assert_eq!(running.get_as("/items", &before).status, 200);
    assert_eq!(revoke(&running, &administrator, &json!({"disabled": "alice"})).status, 200);
    assert_eq!(running.get_as("/items", &before).denial(), (401, "subject_disabled".into()));
    let meanwhile = issuer.token().claim("sub", "alice").claim("jti", "meanwhile").sign();
    assert_eq!(revoke(&running, &administrator, &json!({"enabled": "alice"})).status, 200);
    for token in [&before, &meanwhile] {
        assert_eq!(running.get_as("/items", token).denial(), (401, "revoked".into()));
    }
}

#[test]
fn changes_are_audited_with_who_what_and_the_requests_id() {
    let (running, _upstream, issuer) = started();
    let administrator = issuer.with_roles("root", &["ROLE_SUPER_ADMIN"]);
    let answer = revoke(&running, &administrator, &json!({"session": "s-1"}));
    let told = audit_of(&running, "root");
    assert_eq!(told["event_type"], "auth.token.revoked");
    assert_eq!(told["entry"], json!({"session": "s-1"}));
    assert_eq!((&told["number"], &told["outcome"]), (&answer.json()["number"], &"published".into()));
    assert_eq!(told["request_id"], answer.field("x-request-id").unwrap());
    assert_eq!(told["peer"], "127.0.0.1");
    good(&cli(&running, &["revoke", "--disable", "eve"]));
    let told = audit_of(&running, "local:0");
    assert_eq!((&told["event_type"], &told["peer"]), (&"auth.subject.disabled".into(), &Value::Null));
    assert_eq!(told["entry"], json!({"disabled": "eve"}));
}

#[test]
fn the_socket_is_the_owners_alone_and_goes_with_the_process() {
    let (mut running, _upstream, issuer) = started();
    let socket = running.path(SOCKET);
    let found = std::fs::symlink_metadata(&socket).unwrap();
    assert_eq!(found.permissions().mode() & 0o7777, 0o600);
    let token = issuer.token().claim("jti", "t-1").sign();
    let (status, said) = over(&socket, "POST", "/api/revocations", r#"{"jti": "t-1"}"#);
    assert_eq!((status, &said["propagated"]), (200, &Value::Bool(true)));
    assert_eq!(running.get_as("/items", &token).denial(), (401, "revoked".into()));
    assert_eq!(over(&socket, "POST", "/api/revocations", r#"{"override": "a", "roles": []}"#).0, 422);
    assert_eq!(over(&socket, "GET", "/metrics", "").0, 404);
    assert_eq!(over(&socket, "GET", "/api/status", "").1["loaded"], true);
    let huge = format!("{{\"jti\": \"{}\"}}", "x".repeat(2 << 20));
    assert_eq!(over_impolite(&socket, &huge), 413);
    running.signal("-TERM");
    running.wait(PATIENCE);
    assert!(!socket.exists(), "it is removed at the end");
}

/// The server need not read what it refuses.
fn over_impolite(socket: &Path, body: &str) -> u16 {
    let mut stream = UnixStream::connect(socket).unwrap();
    let length = body.len();
    write!(stream, "POST /api/revocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n").unwrap();
    let _ = stream.write_all(body.as_bytes());
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

#[test]
fn the_socket_serves_no_other_user() {
    let (running, _upstream, _issuer) = started();
    let folder = running.path(".");
    if std::fs::metadata(&folder).unwrap().uid() != 0 {
        eprintln!("skipped: only root can be another user");
        return;
    }
    // Everything on the way is opened up, so that nothing but the kernel's word about the peer is left.
    let open = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    open(&folder, 0o755);
    open(&running.path("data"), 0o755);
    let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
        s.send(b'POST /api/revocations HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 20\\r\\n\\r\\n{\"everything\": true} ')\n\
        print(repr(s.recv(100)))";
    let as_nobody = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", script]);
        command.arg(running.path(SOCKET)).current_dir("/").output().unwrap()
    };
    let refused = as_nobody();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("PermissionError"), "{refused:?}");
    open(&running.path(SOCKET), 0o666);
    let turned_away = as_nobody();
    let said = format!("{turned_away:?}");
    assert!(!said.contains("HTTP/1.1"), "{said}");
    eventually("it is told", PATIENCE, || running.stdout().contains("stranger").then_some(()));
    assert_eq!(over(&running.path(SOCKET), "GET", "/api/status", "").1["number"], 0, "nothing was changed");
}

#[test]
fn a_socket_that_a_crash_left_is_replaced_and_a_living_one_is_not() {
    let (mut running, _upstream, _issuer) = started();
    let socket = running.path(SOCKET);
    running.kill9();
    assert!(socket.exists(), "kill -9 leaves it");
    running.start_again();
    eventually("it is ready again", PATIENCE, || running.is_ready().then_some(()));
    assert_eq!(over(&socket, "GET", "/api/status", "").0, 200);

    // A second process of the same folder: it serves without, and takes over when the first ends.
    let upstream = Upstream::echo();
    let path = socket.display().to_string();
    let second = described(&upstream, &Issuer::hs256()).setting("admin.socket", path).start();
    let inode = std::fs::symlink_metadata(&socket).unwrap().ino();
    eventually("it is told", PATIENCE, || second.stdout().contains("another process's").then_some(()));
    assert_eq!(std::fs::symlink_metadata(&socket).unwrap().ino(), inode, "the living one stays");
    running.signal("-TERM");
    running.wait(PATIENCE);
    eventually("the second takes over", PATIENCE, || UnixStream::connect(&socket).is_ok().then_some(()));
    assert_eq!(over(&socket, "GET", "/api/status", "").0, 200);
    eventually("it says so", PATIENCE, || second.stdout().contains("is ours now").then_some(()));
}

#[test]
fn without_a_socket_doorward_serves_and_says_so() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    // A file where the folder would be, and something that is no socket.
    let blocked =
        described(&upstream, &issuer).file("taken", "x").setting("admin.socket", "taken/doorward.sock").start();
    assert_eq!(blocked.get_as("/items", &issuer.viewer()).status, 200);
    eventually("it is told", PATIENCE, || blocked.stdout().contains("there is no control socket").then_some(()));
    let other = described(&upstream, &issuer).file(SOCKET, "precious").start();
    eventually("it is told", PATIENCE, || other.stdout().contains("is no socket").then_some(()));
    assert_eq!(std::fs::read_to_string(other.path(SOCKET)).unwrap(), "precious");
    let none = described(&upstream, &issuer).setting("admin.socket", "").start();
    assert!(!none.path(SOCKET).exists() && !none.stdout().contains("socket"), "{}", none.stdout());
}

#[test]
fn many_calls_at_a_time_are_all_carried_out() {
    let (running, _upstream, issuer) = started();
    let socket = running.path(SOCKET);
    std::thread::scope(|scope| {
        for number in 0..64 {
            let socket = &socket;
            scope.spawn(move || {
                let (status, said) =
                    over(socket, "POST", "/api/revocations", &json!({"jti": format!("t-{number}")}).to_string());
                assert_eq!(status, 200, "{said}");
            });
        }
        // Who connects and says nothing takes nobody's place for long.
        let idle: Vec<UnixStream> = (0..8).map(|_| UnixStream::connect(&socket).unwrap()).collect();
        assert_eq!(over(&socket, "GET", "/api/status", "").0, 200);
        drop(idle);
    });
    for number in 0..64 {
        let token = issuer.token().claim("jti", format!("t-{number}")).sign();
        assert_eq!(running.get_as("/items", &token).denial(), (401, "revoked".into()));
    }
}

#[test]
fn the_command_line_revokes_on_the_running_process() {
    let (running, _upstream, issuer) = started();
    let token = |subject: &str, id: &str| issuer.token().claim("sub", subject).claim("jti", id).sign();
    let said = good(&cli(&running, &["revoke", "--jti", "t-1", "--issuer", issuer.name, "--output", "json"]));
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["propagated"], &said["by"]), (&Value::Bool(true), &"process".into()), "{said}");
    assert_eq!(running.get_as("/items", &token("a", "t-1")).denial(), (401, "revoked".into()));
    assert!(good(&cli(&running, &["revoke", "--subject", "b"])).starts_with("logged b out everywhere (change "));
    assert_eq!(running.get_as("/items", &token("b", "t-2")).denial(), (401, "revoked".into()));

    let pasted = token("c", "t-3");
    let mut child = command(&running.path("."), &["revoke", "--token-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("Authorization: Bearer {pasted}\n").as_bytes()).unwrap();
    assert!(good(&child.wait_with_output().unwrap()).contains("revoked the token t-3 of issuer"));
    assert_eq!(running.get_as("/items", &pasted).denial(), (401, "revoked".into()));

    assert!(bad(&cli(&running, &["revoke", "--jti", "t", "--issuer", "nobody"]), 1).contains("no issuer is named"));
    for wrong in
        [&["revoke"][..], &["revoke", "--jti", "a", "--session", "b"], &["revoke", "--everything", "--subject", "a"]]
    {
        bad(&cli(&running, wrong), 2);
    }
    assert!(good(&cli(&running, &["revoke", "--everything"])).starts_with("logged everybody out"));
    assert_eq!(running.get_as("/items", &token("d", "t-4")).denial(), (401, "revoked".into()));
    let status: Value = serde_json::from_str(&good(&cli(&running, &["status", "--output", "json"]))).unwrap();
    assert_eq!(status["revocation"]["published"], true, "{status}");
    assert!(status["revocation"]["revocations"].as_u64().unwrap() >= 4, "{status}");
}

/// Whether a token is refused within the patience.
fn comes_to_be_refused(running: &Doorward, token: &str) {
    eventually("the token is refused", PATIENCE, || (running.get_as("/items", token).status == 401).then_some(()));
}

#[test]
fn without_a_process_the_command_line_writes_the_folder() {
    let (mut running, _upstream, issuer) = started();
    running.signal("-TERM");
    running.wait(PATIENCE);
    let said = good(&cli(&running, &["revoke", "--jti", "t-1", "--output", "json"]));
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["propagated"], &said["by"]), (&Value::Bool(true), &"folder".into()), "{said}");
    assert!(bad(&cli(&running, &["revoke", "--jti", "t", "--issuer", "nobody"]), 1).contains("no issuer is named"));
    good(&cli(&running, &["revoke", "--disable", "eve"]));
    let second: Value =
        serde_json::from_str(&good(&cli(&running, &["revoke", "--enable", "eve", "--output", "json"]))).unwrap();
    assert!(second["number"].as_u64() > said["number"].as_u64(), "{second}");
    running.start_again();
    eventually("it is ready again", PATIENCE, || running.is_ready().then_some(()));
    let token = |subject: &str, id: &str| issuer.token().claim("sub", subject).claim("jti", id).sign();
    assert_eq!(running.get_as("/items", &token("a", "t-1")).denial(), (401, "revoked".into()));
    assert_eq!(running.get_as("/items", &token("a", "t-2")).status, 200);

    // After a crash the socket is there, and nobody behind it.
    running.kill9();
    assert!(running.path(SOCKET).exists());
    let said = cli(&running, &["revoke", "--jti", "t-2"]);
    assert!(String::from_utf8_lossy(&said.stderr).contains("no doorward has the control socket"), "{said:?}");
    good(&said);
    running.start_again();
    eventually("it is ready again", PATIENCE, || running.is_ready().then_some(()));
    assert_eq!(running.get_as("/items", &token("a", "t-2")).denial(), (401, "revoked".into()));
}

#[test]
fn where_a_user_service_judges_no_token_is_revoked_as_one_of_an_issuer_that_does_not_count() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let mut running = described(&upstream, &issuer).setting("auth.mode", "iam_service").start();
    let pasted = |running: &Doorward| {
        let inspected = bad(&cli(running, &["token", "inspect", &issuer.viewer()]), 1);
        assert!(inspected.contains("no issuer's tokens are accepted"), "{inspected}");
        let mut child = command(&running.path("."), &["revoke", "--token-stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(issuer.viewer().as_bytes()).unwrap();
        bad(&child.wait_with_output().unwrap(), 1)
    };
    let with_a_process = pasted(&running);
    running.signal("-TERM");
    running.wait(PATIENCE);
    let without = pasted(&running);
    assert!(without.contains("revoke its `jti`, its `session` or its `subject`"), "{without}");
    assert_eq!(with_a_process, without);
    let other = bad(&cli(&running, &["revoke", "--jti", "t", "--issuer", issuer.name]), 1);
    assert!(other.contains("there are: iam_service"), "{other}");
    good(&cli(&running, &["revoke", "--jti", "t", "--issuer", "iam_service"]));
}

#[test]
fn where_nobody_would_look_nothing_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(["revoke", "--jti", "t-1"]).current_dir(folder.path()).env_clear().stdin(Stdio::null());
    let said = bad(&command.output().unwrap(), 1);
    assert!(said.contains("no doorward has ever run here"), "{said}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "and nothing is made");
}

#[test]
fn a_process_without_a_socket_follows_what_the_command_line_writes() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let running = described(&upstream, &issuer).setting("admin.socket", "").start();
    let token = issuer.token().claim("jti", "t-1").sign();
    assert_eq!(running.get_as("/items", &token).status, 200);
    assert!(good(&cli(&running, &["revoke", "--jti", "t-1"])).contains("revoked the token t-1"));
    comes_to_be_refused(&running, &token);
}

#[test]
fn t16_nobody_is_told_that_it_is_done_before_it_is() {
    let (mut running, _upstream, issuer) = started();
    for round in 0..3 {
        let id = format!("t-{round}");
        good(&cli(&running, &["revoke", "--jti", &id]));
        running.kill9();
        running.start_again();
        eventually("it is ready again", PATIENCE, || running.is_ready().then_some(()));
        let token = issuer.token().claim("jti", id).sign();
        assert_eq!(running.get_as("/items", &token).denial(), (401, "revoked".into()));
    }
}

#[test]
fn what_the_disk_does_not_take_is_not_revoked_and_says_so() {
    let (running, _upstream, issuer) = started();
    let administrator = issuer.with_roles("root", &["ROLE_SUPER_ADMIN"]);
    std::fs::write(running.path("data/revocations"), "in the way").unwrap();
    let answer = revoke(&running, &administrator, &json!({"jti": "t-1"}));
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.json()["type"], "urn:doorward:problem:not_recorded");
    assert!(answer.json()["detail"].as_str().unwrap().starts_with("nothing was changed: "), "{answer:?}");
    let token = issuer.token().claim("jti", "t-1").sign();
    assert_eq!(running.get_as("/items", &token).status, 200, "and nothing was");
    assert!(bad(&cli(&running, &["revoke", "--jti", "t-1"]), 1).contains("nothing was changed"));
    let told = audit_of(&running, "root");
    assert_eq!((&told["outcome"], &told["number"]), (&"failed".into(), &Value::Null));
    std::fs::remove_file(running.path("data/revocations")).unwrap();
    assert_eq!(revoke(&running, &administrator, &json!({"jti": "t-1"})).status, 200, "once it is mended");
}

#[test]
fn root_does_not_write_a_folder_of_somebody_else() {
    let (mut running, _upstream, _issuer) = started();
    running.signal("-TERM");
    running.wait(PATIENCE);
    if std::fs::metadata(running.path(".")).unwrap().uid() != 0 {
        eprintln!("skipped: only root could");
        return;
    }
    std::os::unix::fs::chown(running.path("data"), Some(65534), Some(65534)).unwrap();
    let said = bad(&cli(&running, &["revoke", "--jti", "t-1"]), 1);
    assert!(said.contains("belongs to user 65534"), "{said}");
    assert!(!running.path("data/revocations").exists());
}

#[test]
fn an_override_changes_what_tokens_may_do_that_are_out_already() {
    let (running, _upstream, issuer) = started();
    let token = issuer.with_roles("alice", &["ROLE_VIEWER"]);
    let put = || running.request("PUT", "/items/1", &token, &[], "").status;
    assert_eq!((running.get_as("/items", &token).status, put()), (200, 403));
    let said = good(&cli(
        &running,
        &["override", "--subject", "alice", "--role", "ROLE_EDITOR", "--membership", "oms=FREE@1h"],
    ));
    assert!(said.starts_with("alice holds ROLE_EDITOR from now on"), "{said}");
    assert_eq!((running.get_as("/items", &token).status, put()), (200, 200));
    let told = audit_of(&running, "local:0");
    assert_eq!(told["event_type"], "auth.subject.overridden");
    assert_eq!(told["entry"]["needs"].as_str().map(str::len), Some(64), "which roles it presumes: {told}");
    good(&cli(&running, &["override", "--subject", "alice", "--no-roles"]));
    assert_eq!(running.get_as("/items", &token).denial(), (403, "permission_missing".into()));
    let refused = bad(&cli(&running, &["override", "--subject", "alice", "--role", "ROLE_NOBODY"]), 1);
    assert!(refused.contains("ROLE_NOBODY is no role of the roles file"), "{refused}");
    for wrong in [
        &["override", "--subject", "a"][..],
        &["override", "--role", "ROLE_EDITOR"],
        &["override", "--subject", "a", "--role", "x"],
    ] {
        bad(&cli(&running, wrong), 2);
    }
}

#[test]
fn t06_an_override_outlasts_the_roles_file_that_it_was_made_with() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::eddsa());
    let mut running = doorward().issuer_with(&issuer, &[("roles_from", "doorward".into())]).upstream(&upstream).start();
    let token = issuer.with_roles("alice", &[]);
    good(&cli(&running, &["override", "--subject", "alice", "--role", "ROLE_VIEWER"]));
    assert_eq!(running.get_as("/items", &token).status, 200);
    let file = running.path("roles.yaml");
    let edit = |more: &str| {
        let roles = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, roles.replace("roles:\n", &format!("roles:\n  {more}: {{ permissions: [] }}\n")))
            .unwrap();
    };
    // While it runs, ...
    let before = running.metric("doorward_snapshot_version", &[]);
    edit("ROLE_UNRELATED");
    eventually("the edited file is in force", PATIENCE, || {
        (running.metric("doorward_snapshot_version", &[]) > before).then_some(())
    });
    assert_eq!(running.get_as("/items", &token).status, 200);
    let log = running.path("data/revocations/changes.log");
    let announced = || std::fs::read_to_string(&log).unwrap().matches("role_data").count();
    eventually("the edited file is announced", PATIENCE, || (announced() > 0).then_some(()));
    // ... and between two runs, with `kill -9` at its end.
    running.kill9();
    edit("ROLE_ANOTHER");
    running.start_again();
    eventually("it is ready again", PATIENCE, || running.is_ready().then_some(()));
    assert_eq!(running.get_as("/items", &token).status, 200);
    good(&cli(&running, &["override", "--subject", "alice", "--no-roles"]));
    assert_eq!(running.get_as("/items", &token).denial(), (403, "permission_missing".into()));
    // Of data that has not changed nothing is said: somebody may have newer data by now.
    assert_eq!(announced(), 2);
}

#[test]
fn how_something_stands_can_be_asked() {
    let (running, _upstream, issuer) = started();
    let administrator = issuer.with_roles("root", &["ROLE_SUPER_ADMIN"]);
    let ask =
        |query: &str, token: &str| running.admin_request("GET", &format!("/api/revocations?{query}"), Some(token), "");
    assert_eq!(ask("jti=t-1", &administrator).json(), json!({"standing": "good", "changes": []}));
    let number = revoke(&running, &administrator, &json!({"jti": "t-1"})).json()["number"].clone();
    let said = ask("jti=t-1", &administrator).json();
    assert_eq!((&said["standing"], &said["changes"][0]["number"]), (&"revoked".into(), &number), "{said}");
    assert_eq!(said["changes"][0]["entry"], json!({"jti": "t-1"}));
    good(&cli(&running, &["revoke", "--disable", "kc:a/b"]));
    assert_eq!(ask("subject=kc%3Aa%2Fb", &administrator).json()["standing"], "disabled");
    assert_eq!(over(&running.path(SOCKET), "GET", "/api/revocations?subject=kc:a/b", "").1["standing"], "disabled");
    assert_eq!(ask("subject=a&jti=b", &administrator).status, 422);
    for query in ["jti=t-1&issuer=TYPO", "key=k&issuer="] {
        let slip = ask(query, &administrator);
        assert_eq!((slip.status, &slip.json()["pointer"]), (422, &"/issuer".into()), "{slip:?}");
        assert!(slip.json()["detail"].as_str().unwrap().contains(issuer.name), "{slip:?}");
    }
    assert_eq!(ask(&format!("jti=t-1&issuer={}", issuer.name), &administrator).json()["standing"], "revoked");
    assert_eq!(ask("jti=t-1", &issuer.viewer()).denial(), (403, "permission_missing".into()));
}

#[test]
fn with_redis_paused_it_is_accepted_and_published_later() {
    let redis = Redis::start();
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let start = |builder: Builder| builder.setting("redis.url", redis.url()).start();
    let publishes = start(described(&upstream, &issuer));
    let key: Value =
        serde_json::from_slice(&std::fs::read(publishes.path("data/publication-key.jwks.json")).unwrap()).unwrap();
    let public = key["keys"][0]["x"].as_str().unwrap().to_owned();
    let follows = start(described(&upstream, &issuer).setting("publication.public_keys", vec![public]));
    let administrator = issuer.with_roles("root", &["ROLE_SUPER_ADMIN"]);
    eventually("both are ready", PATIENCE, || (publishes.is_ready() && follows.is_ready()).then_some(()));

    let token = |id: &str| issuer.token().claim("jti", id).sign();
    // A second is given to Redis, and a machine may stand still for longer; repeating is harmless.
    eventually("it is published", PATIENCE, || {
        let answer = revoke(&publishes, &administrator, &json!({"jti": "t-1"}));
        assert!(matches!(answer.status, 200 | 202), "{answer:?}");
        assert_eq!(answer.json()["propagated"], answer.status == 200, "{answer:?}");
        (answer.status == 200).then_some(())
    });
    comes_to_be_refused(&follows, &token("t-1"));

    // Who follows changes nothing.
    let refused = revoke(&follows, &administrator, &json!({"jti": "t-2"}));
    assert_eq!(
        (refused.status, &refused.json()["type"]),
        (503, &"urn:doorward:problem:follower".into()),
        "{refused:?}"
    );
    assert!(bad(&cli(&follows, &["revoke", "--jti", "t-2"]), 1).contains("only follows"));
    assert_eq!(publishes.get_as("/items", &token("t-2")).status, 200);

    redis.pause();
    let began = Instant::now();
    let answer = revoke(&publishes, &administrator, &json!({"jti": "t-2"}));
    assert_eq!((answer.status, &answer.json()["propagated"]), (202, &Value::Bool(false)), "{answer:?}");
    assert!(began.elapsed() >= Duration::from_millis(900), "a second is given to Redis");
    let warned = cli(&publishes, &["revoke", "--jti", "t-3"]);
    assert!(String::from_utf8_lossy(&warned.stderr).contains("not published yet"), "{warned:?}");
    good(&warned);
    assert_eq!(publishes.get_as("/items", &token("t-2")).denial(), (401, "revoked".into()), "here it counts at once");
    redis.resume();
    comes_to_be_refused(&follows, &token("t-2"));
    comes_to_be_refused(&follows, &token("t-3"));
    eventually("all is published", PATIENCE, || {
        let status: Value = serde_json::from_str(&good(&cli(&publishes, &["status", "--output", "json"]))).unwrap();
        (status["revocation"]["published"] == true).then_some(())
    });
}

#[test]
fn with_redis_and_without_a_process_the_command_line_publishes_itself() {
    let redis = Redis::start();
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let start = |builder: Builder| builder.setting("redis.url", redis.url()).start();
    let mut publishes = start(described(&upstream, &issuer));
    let key: Value =
        serde_json::from_slice(&std::fs::read(publishes.path("data/publication-key.jwks.json")).unwrap()).unwrap();
    let public = key["keys"][0]["x"].as_str().unwrap().to_owned();
    let follows = start(described(&upstream, &issuer).setting("publication.public_keys", vec![public]));
    eventually("both are ready", PATIENCE, || (publishes.is_ready() && follows.is_ready()).then_some(()));
    publishes.signal("-TERM");
    publishes.wait(PATIENCE);
    // Redis has a second or two to answer it, and a machine may stand still for longer; repeating is harmless.
    eventually("it is published", PATIENCE, || {
        let said = cli(&publishes, &["revoke", "--jti", "t-1", "--output", "json"]);
        let json: Value = serde_json::from_str(&good(&said)).unwrap();
        assert_eq!(json["by"], "folder", "{said:?}");
        (json["propagated"] == true).then_some(())
    });
    comes_to_be_refused(&follows, &issuer.token().claim("jti", "t-1").sign());

    redis.pause();
    let said = cli(&publishes, &["revoke", "--jti", "t-2", "--output", "json"]);
    let json: Value = serde_json::from_str(&good(&said)).unwrap();
    assert_eq!(json["propagated"], false, "{said:?}");
    assert!(String::from_utf8_lossy(&said.stderr).contains("not published yet"), "{said:?}");
    redis.resume();
}
