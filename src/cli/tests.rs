//! Commands as the shell calls them: arguments, environment and standard input in; streams and exit code out.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::CommandFactory as _;
use serde_json::Value;
use tempfile::TempDir;

use super::*;

const SECRET: &str = "12345678901234567890123456789012";

/// What came of a command.
struct Done {
    code: ExitCode,
    out: String,
    err: String,
}

impl Done {
    #[track_caller]
    fn good(self) -> String {
        assert_eq!(self.code, ExitCode::SUCCESS, "{}{}", self.out, self.err);
        self.out
    }

    #[track_caller]
    fn no(self) -> String {
        assert_eq!(self.code, ExitCode::from(FAILED), "{}{}", self.out, self.err);
        format!("{}{}", self.out, self.err)
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

fn run_in(env: &[(&str, &str)], stdin: &str, args: &[&str]) -> Done {
    let cli = Cli::try_parse_from([&["doorward"], args].concat()).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = cli.execute(env, &mut stdin.as_bytes(), &mut out, &mut err);
    Done { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

fn run(args: &[&str]) -> Done {
    run_in(&[], "", args)
}

/// A configuration with an issuer that signs with keys in a folder of its own, and a foreign one with a secret.
fn configuration() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.json");
    let text = format!(
        "[upstreams.oms]\nendpoints = [\"http://127.0.0.1:8000\"]\n[auth]\nlocal_keys = {keys:?}\nsecret = \"{SECRET}\"\n\
         [[auth.issuers]]\nname = \"own\"\nissuer = \"http://own\"\naudience = [\"oms\"]\nkeys = \"local\"\n\
         [[auth.issuers]]\nname = \"old\"\nissuer = \"http://old\"\naudience = [\"oms\"]\nkeys = \"secret\"\n\
         subject_prefix = \"old:\"\nconfers = \"any\"\n"
    );
    let file = folder.path().join("doorward.toml");
    std::fs::write(&file, text).unwrap();
    (folder, file.display().to_string())
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

#[test]
fn every_help_shows_an_example() {
    fn visit(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Example:\n") && help.contains("doorward "), "{path} shows no example: {help:?}");
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            visit(inner, &path);
        }
    }
    Cli::command().debug_assert();
    visit(&Cli::command(), "");
}

#[test]
fn wrong_use_is_2_and_every_command_takes_a_configuration() {
    for args in [
        &["doorward"][..],
        &["doorward", "fly"],
        &["doorward", "token", "mint"],
        &["doorward", "token", "mint", "--sub", "a", "--role", "editor"],
        &["doorward", "token", "mint", "--sub", "a", "--ttl", "15"],
        &["doorward", "token", "mint", "--sub", "a", "--membership", "oms"],
        &["doorward", "policy", "explain", "GET /"],
        &["doorward", "policy", "explain", "/", "--as", "anonymous"],
        &["doorward", "policy", "explain", "GET /", "--as", "alice"],
        &["doorward", "policy", "explain", "GET /", "--as", "anonymous", "--host", "a b"],
        &["doorward", "completions", "cobol"],
        &["doorward", "revoke"],
        &["doorward", "revoke", "--jti", "a", "--session", "b"],
        &["doorward", "revoke", "--everything", "--token-stdin"],
        &["doorward", "revoke", "--session", "a", "--issuer", "b"],
        &["doorward", "revoke", "--subject", "a", "--expires-at", "8h"],
        &["doorward", "revoke", "--jti", "a", "--expires-at", "tomorrow"],
        &["doorward", "override", "--subject", "a"],
        &["doorward", "override", "--subject", "a", "--role", "editor"],
        &["doorward", "override", "--subject", "a", "--role", "ROLE_A", "--no-roles"],
        &["doorward", "override", "--subject", "a", "--role", "ROLE_A@soon"],
        &["doorward", "override", "--subject", "a", "--role", "ROLE_A", "--membership", "oms"],
    ] {
        assert_eq!(Cli::try_parse_from(args).unwrap_err().exit_code(), 2, "{args:?}");
    }
    for args in [
        &["doorward", "config", "--config", "x"][..],
        &["doorward", "policy", "check", "--config", "x"],
        &["doorward", "--config", "x", "token", "inspect"],
        &["doorward", "run", "--config", "x"],
    ] {
        assert!(Cli::try_parse_from(args).is_ok(), "{args:?}");
    }
}

#[test]
fn the_whole_of_what_is_said_of_a_command_is_in_its_help() {
    for (name, said) in [
        ("revoke", "1 if nothing was changed"),
        ("override", "roles that are not named are taken"),
        ("health", "within 5 s"),
    ] {
        let help = Cli::command().find_subcommand_mut(name).unwrap().render_long_help().to_string();
        let words: Vec<&str> = help.split_whitespace().collect();
        assert!(words.join(" ").contains(said), "{name}: {help}");
    }
    let about = Cli::command().get_about().unwrap().to_string();
    assert!(about.starts_with("One binary"), "{about}");
}

#[test]
fn a_change_without_a_process_is_recorded_once_it_is_good() {
    let (folder, config) = configuration();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let (socket, truth, key) = (place("no.sock"), place("truth"), place("key.json"));
    let env = [
        ("DOORWARD_ADMIN__SOCKET", socket.as_str()),
        ("DOORWARD_REVOCATION__FOLDER", truth.as_str()),
        ("DOORWARD_PUBLICATION__KEY_FILE", key.as_str()),
    ];
    let change = |stdin: &str, args: &[&str]| run_in(&env, stdin, &[args, &["--config", &config]].concat());
    let token = run(&["token", "mint", "--config", &config, "--issuer", "old", "--sub", "a"]).good();
    assert!(change("nonsense", &["revoke", "--token-stdin"]).no().contains("malformed_token"));
    assert!(change("", &["revoke", "--token-stdin"]).no().contains("no token"));
    assert!(change("", &["revoke", "--key", "k", "--issuer", "none"]).no().contains("there are: own, old"));
    assert!(!Path::new(&truth).exists(), "what is refused makes nothing");
    let done = change(&token, &["revoke", "--token-stdin"]);
    assert!(done.err.contains("nothing was ever recorded there before"), "{}", done.err);
    assert!(done.good().contains(" of issuer old (change "));
    let done = change("", &["override", "--subject", "alice", "--role", "ROLE_USER@1h", "--output", "json"]);
    assert!(!done.err.contains("nothing was ever recorded"), "{}", done.err);
    let json = done.json();
    assert_eq!((&json["by"], &json["entry"]["roles"][0]["role"]), (&"folder".into(), &"ROLE_USER".into()), "{json:#}");
    assert!(change("", &["override", "--subject", "alice", "--role", "ROLE_NONE"]).no().contains("ROLE_NONE"));
    assert!(change("", &["revoke", "--everything"]).good().starts_with("logged everybody out (change "));
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).good();
        assert!(script.contains("doorward") && script.contains("explain"), "{shell}");
    }
}

#[test]
fn the_shipped_policies_check_without_a_finding() {
    let done = run(&["policy", "check"]);
    assert_eq!(done.good(), "ok: policies/oms.yaml, policies/admin.yaml: 17 routes\n");
    let report = run(&["policy", "check", "--output", "json"]).json();
    assert_eq!(report, serde_json::json!({ "ok": true, "problems": [] }));
}

#[test]
fn the_shipped_cases_pass_and_reach_every_route_and_branch() {
    let done = run(&["policy", "test", "--output", "json"]);
    let report = done.json();
    assert_eq!(report["ok"], true, "{report:#}");
    let coverage = &report["files"][0]["coverage"];
    assert_eq!(coverage["routes"], coverage["routes_covered"], "{coverage:#}");
    assert_eq!(coverage["missing"], serde_json::json!([]), "{coverage:#}");
    assert!(run(&["policy", "test", "policies/oms.test.yaml"]).good().contains(" 0 failed"));
}

#[test]
fn the_schema_that_is_shipped_is_the_one_that_is_printed() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/policies/doorward-policy.v1.schema.json");
    let shipped = std::fs::read_to_string(file).unwrap();
    assert!(
        run(&["policy", "schema"]).good() == shipped,
        "run: doorward policy schema > policies/doorward-policy.v1.schema.json"
    );
}

#[test]
fn a_case_that_fails_is_told_with_its_explanation() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.yaml", &std::fs::read_to_string("policies/oms.yaml").unwrap());
    let cases = "cases:\n  - { as: anonymous, request: GET /api/v1/schema, expect: allow }\n";
    let said = run(&["policy", "test", &write(folder.path(), "a.test.yaml", cases)]).no();
    assert!(said.contains("expected allow, got missing_token"), "{said}");
    let (_config, config) = configuration();
    let unnamed = write(folder.path(), "cases.yaml", cases);
    let said = run(&["policy", "test", &unnamed, "--config", &config]).no();
    assert!(said.contains("expected allow, got missing_token"), "the configured policies are tested: {said}");
    let said = run(&["policy", "test", &write(folder.path(), "a.test.yaml", "cases:\n  - { as: 1 }\n")]).no();
    assert!(said.contains("a.test.yaml"), "{said}");
}

#[test]
fn a_question_without_a_host_is_about_the_hosts_of_the_policy() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string("policies/oms.yaml").unwrap();
    let policy = write(folder.path(), "oms.yaml", &text.replace("# hosts: [", "hosts: ["));
    let ask = |more: &[&str]| {
        let question = ["policy", "explain", "GET /api/v1/schema", "--as", "role:ROLE_USER", "--file", &policy];
        run(&[&question, more].concat())
    };
    let done = ask(&[]);
    assert!(done.err.contains("oms.example.com"), "what was assumed is said: {}", done.err);
    assert!(done.out.starts_with("ALLOW"), "{}", done.out);
    assert!(ask(&["--host", "oms.example.com"]).good().starts_with("ALLOW"));
    assert!(ask(&["--host", "other.test"]).no().contains("no_route"));
}

#[test]
fn faults_of_all_files_are_told_at_once_and_the_exit_code_is_1() {
    let folder = tempfile::tempdir().unwrap();
    let one = "version: 1\nservice: oms\nupstream: oms\npaths:\n  /a:\n    get: schema:veiw\n";
    let two = "version: 1\nservice: two\nupstream: two\npath:\n  /a: {}\n";
    let (one, two) = (write(folder.path(), "one.yaml", one), write(folder.path(), "two.yaml", two));
    let done = run(&["policy", "check", &one, &two, "/no/such.yaml", "--output", "json"]);
    assert_eq!(done.code, ExitCode::from(FAILED));
    let report = done.json();
    assert_eq!(report["ok"], false);
    let files: Vec<&str> =
        report["problems"].as_array().unwrap().iter().filter_map(|problem| problem["file"].as_str()).collect();
    for file in [&one, &two, "/no/such.yaml"] {
        assert!(files.contains(&file), "{file}: {report:#}");
    }
    let said = run(&["policy", "check", &one]).no();
    assert!(said.contains("schema:view") && said.contains("1 error:"), "{said}");
    let said = run(&["policy", "check", "policies/oms.yaml", "--roles", "/no/roles.yaml"]).no();
    assert!(said.contains("/no/roles.yaml") && said.contains("1 error:"), "{said}");
}

#[test]
fn a_permission_that_no_route_asks_for_is_warned_of_at_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let policy = "version: 1\nservice: oms\nupstream: oms\npaths:\n  /a:\n    get: order:view\n";
    let roles = "version: 1\npermissions:\n  oms: [order:view,\n    order:edit]\n  blog: [post:edit]\n  doorward: [role:view]\n\
                 roles:\n  ROLE_USER: {permissions: ['*']}\n";
    let (policy, roles) = (write(folder.path(), "oms.yaml", policy), write(folder.path(), "roles.yaml", roles));
    let report = run(&["policy", "check", &policy, "--roles", &roles, "--output", "json"]).json();
    assert_eq!(report["ok"], true);
    let problems = report["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1, "of oms alone, whose policy was checked: {report:#}");
    assert_eq!((&problems[0]["code"], &problems[0]["severity"]), (&"permission-unasked".into(), &"warning".into()));
    assert_eq!((&problems[0]["file"], &problems[0]["line"]), (&roles.clone().into(), &4.into()));
    assert!(run(&["policy", "check", &policy, "--roles", &roles]).good().contains("no route asks for `order:edit`"));
}

#[test]
fn explain_says_why_and_its_exit_code_is_the_answer() {
    let ask = |request: &str, who: &str| run(&["policy", "explain", request, "--as", who]);
    assert!(ask("GET /health", "anonymous").good().starts_with("ALLOW"));
    assert!(ask("GET /api/v1/schema", "role:ROLE_USER").good().starts_with("ALLOW"));
    assert!(ask("GET /api/v1/schema", "anonymous").no().contains("missing_token"));
    let said = ask("DELETE /api/v1/schema/1", "role:ROLE_EDITOR").no();
    assert!(said.contains("✓") && said.contains("✗") && said.contains("schema:delete"), "{said}");
    assert!(ask("GET /api/v1/users/bob/orders", "sub:bob,role:ROLE_USER").good().starts_with("ALLOW"));
    assert!(ask("GET /api/v1/users/bob/orders", "sub:eve,role:ROLE_USER").no().starts_with("DENY"));
    let report = ["sub:a,role:ROLE_USER,membership:oms=PREMIUM", "sub:a,role:ROLE_USER,membership:oms=FREE"];
    assert!(ask("GET /api/v1/reports/x", report[0]).good().starts_with("ALLOW"));
    assert!(ask("GET /api/v1/reports/x", report[1]).no().starts_with("DENY"));
    let admin =
        run(&["policy", "explain", "POST /api/revocations", "--as", "role:ROLE_USER", "--admin", "--output", "json"]);
    assert_eq!(admin.code, ExitCode::from(FAILED));
    let json = admin.json();
    assert_eq!((&json["decision"], &json["reason"]), (&"deny".into(), &"permission_missing".into()), "{json:#}");
    for key in ["decision", "reason", "route", "file", "tree"] {
        assert!(json.get(key).is_some(), "{key}");
    }
}

#[test]
fn explain_takes_a_token_and_refuses_what_the_gateway_would() {
    let (_folder, config) = configuration();
    let mint =
        |args: &[&str]| run(&[&["token", "mint", "--config", &config][..], args].concat()).good().trim().to_owned();
    let explain =
        |token: &str, request: &str| run(&["policy", "explain", request, "--token", token, "--config", &config]);
    let token = mint(&["--sub", "emil", "--role", "ROLE_EDITOR"]);
    assert!(explain(&token, "POST /api/v1/schema").good().starts_with("ALLOW"));
    assert!(explain(&token, "DELETE /api/v1/schema/1").no().contains("permission_missing"));
    assert!(explain(&token[..token.len() - 8], "POST /api/v1/schema").no().contains("token"), "a cut signature");
    // A bad token on a public route is as good as none.
    assert!(explain("nonsense", "GET /health").good().starts_with("ALLOW"));
    assert!(explain("nonsense", "GET /api/v1/schema").no().contains("malformed_token"));
}

#[test]
fn t07_explain_counts_no_administrators_role_of_a_foreign_issuer() {
    let (_folder, config) = configuration();
    let args = ["token", "mint", "--config", &config, "--issuer", "old", "--sub", "x", "--role", "ROLE_SUPER_ADMIN"];
    let token = run(&args).good();
    let said = run(&["policy", "explain", "GET /api/v1/schema", "--token", token.trim(), "--config", &config]).no();
    assert!(said.contains("permission_missing"), "{said}");
}

#[test]
fn a_minted_token_stands_alone_on_the_output_and_is_accepted() {
    let (_folder, config) = configuration();
    let args = [
        "token",
        "mint",
        "--config",
        &config,
        "--sub",
        "alice",
        "--role",
        "ROLE_USER",
        "--role",
        "ROLE_EDITOR",
        "--membership",
        "oms=PREMIUM",
        "--name",
        "Alice",
        "--email",
        "a@example.com",
        "--session",
        "s1",
        "--ttl",
        "5m",
    ];
    let token = run(&args).good();
    assert_eq!(token.lines().count(), 1);
    for stdin in [token.clone(), format!("Authorization: Bearer {token}"), format!("  {}\n\n", token.trim())] {
        let done = run_in(&[], &stdin, &["token", "inspect", "--config", &config, "--output", "json"]);
        let report = done.json();
        assert_eq!(report["verification"]["accepted"], true, "{report:#}");
        assert_eq!(report["claims"]["memberships"]["oms"], "PREMIUM");
        assert_eq!(report["claims"]["exp"].as_i64().unwrap() - report["claims"]["iat"].as_i64().unwrap(), 300);
        done.good();
    }
    let text = run(&["token", "inspect", token.trim(), "--config", &config]).good();
    assert!(text.contains("\naccepted: issuer own, subject alice, roles ROLE_EDITOR, ROLE_USER\n"), "{text}");
    assert!(
        text.trim_end().lines().last().unwrap().starts_with("not looked at: whether it has been revoked"),
        "{text}"
    );
    let report = run(&["token", "inspect", token.trim(), "--config", &config, "--output", "json"]).json();
    assert_eq!(report["verification"]["revocations_checked"], false);
}

#[test]
fn what_cannot_be_minted_or_is_refused_says_why() {
    let (_folder, config) = configuration();
    let mint = |args: &[&str]| run(&[&["token", "mint", "--config", &config][..], args].concat()).no();
    assert!(mint(&["--sub", "a", "--ttl", "2h"]).contains("max_lifetime"), "T5");
    assert!(mint(&["--sub", "a", "--issuer", "none"]).contains("no issuer is named \"none\"; there are: own, old"));
    assert!(mint(&["--sub", "a,b"]).contains("error"), "T22");
    let inspect = |stdin: &str| run_in(&[], stdin, &["token", "inspect", "--config", &config]).no();
    assert!(inspect("nonsense").contains("refused: malformed_token"));
    assert!(inspect("").contains("no token"));
    let (_other, elsewhere) = configuration();
    let foreign = run(&["token", "mint", "--config", &elsewhere, "--sub", "a"]).good();
    run(&["token", "mint", "--config", &config, "--sub", "a"]).good();
    assert!(inspect(&foreign).contains("refused: unknown_key"), "{}", inspect(&foreign));
}

/// A server of a key set, and how often it was asked; it ends with the test.
fn key_server(set: String) -> (String, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            count.fetch_add(1, Ordering::SeqCst);
            let length = set.len();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{set}");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (format!("jwks+http://{address}/"), asked)
}

/// A configuration that knows the issuer `own` of another by a URL alone, and one more that nobody asks about.
fn verifying(url: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[upstreams.oms]\nendpoints = [\"http://127.0.0.1:8000\"]\n\
         [[auth.issuers]]\nname = \"kc\"\nissuer = \"http://own\"\naudience = [\"oms\"]\nkeys = \"{url}\"\n\
         subject_prefix = \"kc:\"\nconfers = \"any\"\n\
         [[auth.issuers]]\nname = \"other\"\nissuer = \"http://other\"\naudience = [\"oms\"]\n\
         keys = \"jwks+http://127.0.0.1:1/\"\nsubject_prefix = \"other:\"\nconfers = \"any\"\n"
    );
    let file = write(folder.path(), "doorward.toml", &text);
    (folder, file)
}

#[test]
fn where_keys_are_behind_a_url_they_are_fetched_once() {
    let (_signing, config) = configuration();
    let token = run(&["token", "mint", "--config", &config, "--sub", "alice", "--role", "ROLE_USER"]).good();
    let listed = run(&["keys", "list", "--config", &config, "--output", "json"]).json();
    let (url, asked) = key_server(listed["jwks"].to_string());
    let (folder, config) = verifying(&url);
    let said = run(&["token", "inspect", token.trim(), "--config", &config]).good();
    assert!(said.contains("accepted: issuer kc, subject kc:alice, roles ROLE_USER\n"), "{said}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(run_in(&[], "nonsense", &["token", "inspect", "--config", &config]).no().contains("malformed_token"));
    assert_eq!(asked.load(Ordering::SeqCst), 1, "nobody's token is no reason to ask");
    let explained = ["policy", "explain", "GET /api/v1/schema", "--token", token.trim(), "--config", &config];
    assert!(run(&explained).good().starts_with("ALLOW"));
    let place = |name: &str| folder.path().join(name).display().to_string();
    let (socket, truth, key) = (place("no.sock"), place("truth"), place("key.json"));
    let env = [
        ("DOORWARD_ADMIN__SOCKET", socket.as_str()),
        ("DOORWARD_REVOCATION__FOLDER", truth.as_str()),
        ("DOORWARD_PUBLICATION__KEY_FILE", key.as_str()),
    ];
    let done = run_in(&env, &token, &["revoke", "--token-stdin", "--config", &config]);
    assert!(done.good().contains(" of issuer kc (change "));
    // Nobody answers: that says nothing about the token, and is said.
    let (_folder, config) = verifying("jwks+http://127.0.0.1:1/");
    for output in ["text", "json"] {
        let said = run(&["token", "inspect", token.trim(), "--config", &config, "--output", output]).no();
        assert!(said.contains("auth_unavailable") && said.contains("the keys of issuer"), "{said}");
        assert!(said.contains("cannot be fetched from http://127.0.0.1:1/"), "{said}");
    }
    let said = run_in(&env, &token, &["revoke", "--token-stdin", "--config", &config]).no();
    assert!(said.contains("cannot be fetched from http://127.0.0.1:1/"), "{said}");
}

#[test]
fn who_follows_makes_no_keys_that_nobody_else_knows() {
    let (folder, config) = configuration();
    let keys = folder.path().join("keys.json");
    let pinned = format!("[\"{}\"]", "A".repeat(42) + "E");
    let truth = folder.path().join("truth").display().to_string();
    let env = [
        ("REDIS_URL", "redis://127.0.0.1:1"),
        ("DOORWARD_PUBLICATION__PUBLIC_KEYS", pinned.as_str()),
        ("DOORWARD_REVOCATION__FOLDER", truth.as_str()),
    ];
    let follower = |args: &[&str]| run_in(&env, "", &[args, &["--config", &config]].concat());
    for args in [&["token", "mint", "--sub", "a"][..], &["keys", "rotate"], &["keys", "rotate", "--now"]] {
        let said = follower(args).no();
        assert!(said.contains("follows") && said.contains("control plane"), "{args:?}: {said}");
        assert!(!keys.exists(), "{args:?}");
    }
    // What needs none of these keys is none of their business.
    follower(&["token", "mint", "--sub", "a", "--issuer", "old"]).good();
    assert!(!keys.exists());
    // Who has been given the file may use it.
    run(&["token", "mint", "--sub", "a", "--config", &config]).good();
    follower(&["token", "mint", "--sub", "a"]).good();
    follower(&["keys", "rotate"]).good();
}

#[test]
fn root_makes_and_changes_no_keys_of_somebody_else() {
    let (folder, config) = configuration();
    let keys = folder.path().join("keys.json");
    let owned_by = |path: &Path, user| std::os::unix::fs::chown(path, Some(user), Some(user));
    // Only root can give a folder away.
    if owned_by(folder.path(), 65534).is_err() {
        return;
    }
    let commands = [&["token", "mint", "--sub", "a"][..], &["keys", "rotate", "--now"]];
    let refused = |why: &str| {
        for args in commands {
            let said = run(&[args, &["--config", &config]].concat()).no();
            assert!(said.contains("keys.json") && said.contains("sudo -u '#65534' doorward"), "{why} {args:?}: {said}");
        }
    };
    refused("the folder that it would be made in");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the configuration alone");
    owned_by(folder.path(), 0).unwrap();
    run(&["token", "mint", "--sub", "a", "--config", &config]).good();
    owned_by(&keys, 65534).unwrap();
    let before = std::fs::read(&keys).unwrap();
    assert!(run(&["keys", "rotate", "--now", "--config", &config]).no().contains("sudo -u '#65534' doorward"));
    assert_eq!(std::fs::read(&keys).unwrap(), before);
    // Only to sign with them changes nothing.
    run(&["token", "mint", "--sub", "a", "--config", &config]).good();
    // A link is judged by what it leads to.
    let elsewhere = folder.path().join("elsewhere.json");
    std::fs::rename(&keys, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &keys).unwrap();
    assert!(run(&["keys", "rotate", "--now", "--config", &config]).no().contains("sudo -u '#65534' doorward"));
}

#[test]
fn inspecting_makes_no_keys() {
    let (folder, config) = configuration();
    run_in(&[], "nonsense", &["token", "inspect", "--config", &config]).no();
    assert!(!folder.path().join("keys.json").exists());
}

#[test]
fn config_shows_what_is_in_force_without_secrets() {
    let (_folder, config) = configuration();
    let env = [("DOORWARD_GATEWAY__WORKERS", "3"), ("DOORWARD_CONFIG", config.as_str())];
    let text = run_in(&env, "", &["config"]).good();
    assert!(text.starts_with(&format!("# from {config}\n")) && text.contains("workers = 3"), "{text}");
    assert!(text.contains("secret = \"***\"") && !text.contains(SECRET));
    let done = run_in(&env, "", &["config", "--output", "json"]);
    assert_eq!(done.json()["gateway"]["workers"], 3);
    assert!(!done.out.contains(SECRET));
}

#[test]
fn a_bad_configuration_stops_every_command_with_all_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "doorward.toml", "[gateway]\nlistn = 1\nworkers = \"x\"\n");
    for args in [&["run"][..], &["config"], &["policy", "check"], &["policy", "test"], &["token", "mint", "--sub", "a"]]
    {
        let said = run(&[args, &["--config", &config]].concat()).no();
        assert!(said.starts_with("error: the configuration has 2 mistakes\n"), "{said}");
        assert!(said.contains(":2: `gateway.listn`: unknown key") && said.contains(":3: `gateway.workers`"), "{said}");
    }
    assert!(run(&["config", "--config", "/no/such.toml"]).no().contains("/no/such.toml: cannot read"));
    assert!(run(&["demo", "--config", &config]).no().contains("a configuration of its own"));
}

/// Whoever reads has gone away.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    for args in [["policy", "schema"], ["completions", "bash"]] {
        let mut err = Vec::new();
        let cli = Cli::try_parse_from(std::iter::once("doorward").chain(args)).unwrap();
        let code = cli.execute(std::iter::empty(), &mut &b""[..], &mut Closed, &mut err);
        assert_eq!((code, err.as_slice()), (ExitCode::SUCCESS, &b""[..]), "{args:?}");
    }
}

#[test]
fn what_followers_pin_is_shown_by_who_signs_no_tokens_too() {
    let (folder, config) = verifying("jwks+http://127.0.0.1:1/");
    let listing = ["keys", "list", "--config", &config];
    assert!(run(&listing).no().contains("no issuer has keys = \"local\""), "nothing to show yet");
    let text = std::fs::read_to_string(&config).unwrap();
    let key_file = folder.path().join("publication.json");
    std::fs::write(&config, format!("{text}[publication]\nkey_file = {key_file:?}\n")).unwrap();
    let made = crate::token::local_keys::load_or_create_publication(&key_file).unwrap();
    let listed = run(&["keys", "list", "--config", &config, "--output", "json"]).json();
    assert_eq!(listed["publication"]["public_keys"], serde_json::json!(made.public));
    assert!(run(&listing).good().contains(&format!("[publication] public_keys of followers: {}\n", made.public[0])));
}
