//! `doorward health` and `doorward status`, asked of a running process (SPEC 10).

use std::process::{Command, Output};
use std::time::Duration;

use crate::harness::{Doorward, Upstream, doorward, eventually, free_ports};

fn ask(running: &Doorward, env: &[(&str, &str)], args: &[&str]) -> Output {
    let config = running.path("doorward.toml");
    assert!(config.exists(), "the harness keeps its configuration there");
    Command::new(env!("CARGO_BIN_EXE_doorward"))
        .args(args)
        .arg("--config")
        .arg(config)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .expect("doorward starts")
}

/// What it says once it ends well: it waits 5 s for an answer, which a machine that stands still can use up.
fn once_good(running: &Doorward, args: &[&str]) -> Output {
    eventually("it ends well", Duration::from_secs(20), || {
        Some(ask(running, &[], args)).filter(|output| output.status.success())
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn health_is_0_when_ready_and_1_when_nobody_answers() {
    let upstream = Upstream::echo();
    let running = doorward().upstream(&upstream).start();
    let healthy = once_good(&running, &["health"]);
    assert_eq!((healthy.status.code(), text(&healthy.stdout).as_str()), (Some(0), "ready\n"), "{healthy:?}");

    let [nobody] = free_ports();
    let elsewhere = format!("127.0.0.1:{nobody}");
    let env = [("DOORWARD_ADMIN__LISTEN", elsewhere.as_str())];
    let gone = ask(&running, &env, &["health"]);
    assert_eq!((gone.status.code(), gone.stdout.len()), (Some(1), 0));
    assert!(text(&gone.stderr).contains("is doorward running?"), "{gone:?}");

    let off = ask(&running, &[("DOORWARD_ADMIN__ENABLED", "false")], &["health"]);
    assert_eq!(off.status.code(), Some(1));
    assert!(text(&off.stderr).contains("[admin] enabled"), "{off:?}");
}

#[test]
fn health_is_1_when_the_listener_is_silent() {
    let running = doorward().start();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("its address").to_string();
    let hung = ask(&running, &[("DOORWARD_ADMIN__LISTEN", address.as_str())], &["health"]);
    assert_eq!(hung.status.code(), Some(1));
    assert!(text(&hung.stderr).contains("no answer within 5 s"), "{hung:?}");
}

#[test]
fn status_tells_of_the_policy_in_force_and_of_one_that_was_refused() {
    let running = doorward().start();
    let status = once_good(&running, &["status", "--output", "json"]);
    let told: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!((&told["ready"], &told["version"]), (&true.into(), &env!("CARGO_PKG_VERSION").into()));
    let policy = &told["policies"][0];
    assert_eq!(policy["service"], "oms");
    assert!(policy["sha256"].as_str().is_some_and(|sha256| sha256.len() == 64), "{told}");

    std::fs::write(running.path("policy0.yaml"), "version: 1\n").expect("the policy can be written");
    let refused = eventually("the change is refused", Duration::from_secs(20), || {
        let status = ask(&running, &[], &["status"]);
        (status.status.code() == Some(1) && text(&status.stdout).contains("was refused")).then_some(status)
    });
    let said = text(&refused.stdout);
    assert!(said.contains(": ready\n") && said.contains("was refused"), "{said}");
    assert!(said.contains(policy["sha256"].as_str().expect("a digest")), "{said}");
}
