//! From a request id to the cause: the ring of recent decisions (SPEC 3.7, THREATS T30).

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Behaviour, Builder, Doorward, Issuer, POLICY, ROLES, Response, Upstream, doorward, eventually};

/// Two services, told apart by host, and viewers of the decisions of one and of all.
const SHOPPING: &str = "
version: 1
service: shopping
upstream: oms
hosts: [shop.test]
paths:
  /carts: { get: cart:view }
";

fn roles() -> String {
    ROLES.replace("permissions:\n  oms:", "permissions:\n  shopping: [cart:view]\n  oms:").replace(
        "roles:\n",
        "roles:
  ROLE_AUDITOR: { permissions: ['decision:view'] }
  ROLE_OMS_AUDITOR: { scope: oms, permissions: ['decision:view', 'session:revoke', 'metrics:view'] }
",
    )
}

fn builder(issuer: &Issuer, upstream: &Upstream) -> Builder {
    doorward()
        .policy(POLICY)
        .another_policy(SHOPPING)
        .roles(&roles())
        .issuer_with(issuer, &[("admin", true.into())])
        .upstream(upstream)
}

fn started() -> (Doorward, Upstream, Issuer) {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    (builder(&issuer, &upstream).start(), upstream, issuer)
}

fn asked(running: &Doorward, token: Option<&str>, request_id: &str) -> Response {
    running.admin_request("GET", &format!("/api/decisions/{request_id}"), token, "")
}

fn id(response: &Response) -> String {
    response.field("x-request-id").expect("every response has one").to_owned()
}

/// What is told of a response's request. It is told once the answer has gone, which may be after it has arrived.
fn explained(running: &Doorward, issuer: &Issuer, response: &Response) -> Value {
    let auditor = issuer.with_roles("ada", &["ROLE_AUDITOR"]);
    eventually("the decision is remembered", Duration::from_secs(20), || {
        let answer = asked(running, Some(&auditor), &id(response));
        (answer.status == 200).then(|| answer.json())
    })
}

#[test]
fn a_denial_is_explained_from_its_request_id_alone() {
    let (running, _upstream, issuer) = started();
    let denied = running.request("DELETE", "/items/%37", &issuer.viewer(), &[], "");
    assert_eq!(denied.denial(), (403, "permission_missing".into()));
    let told = explained(&running, &issuer, &denied);
    for (key, value) in [
        ("request_id", Value::from(id(&denied))),
        ("decision", "deny".into()),
        ("reason", "permission_missing".into()),
        ("status", 403.into()),
        ("method", "DELETE".into()),
        ("path", "/items/7".into()),
        ("host", "oms.test".into()),
        ("client", "127.0.0.1".into()),
        ("subject", "u-1".into()),
        ("roles", vec!["ROLE_VIEWER"].into()),
        ("service", "oms".into()),
        ("route", "/items/{id}".into()),
        ("route_method", "DELETE".into()),
        ("upstream", Value::Null),
    ] {
        assert_eq!(told[key], value, "{key} in {told}");
    }
    assert!(told["file"].as_str().unwrap().ends_with("policy0.yaml") && told["line"].as_u64().unwrap() > 1, "{told}");
    let sha256 = format!("sha256=\"{}\"", told["sha256"].as_str().unwrap());
    assert_eq!(running.metric("doorward_policy_info", &["service=\"oms\"", &sha256]), 1.0);
    assert_eq!(told["snapshot"].as_f64().unwrap(), running.metric("doorward_snapshot_version", &[]));
    assert_eq!((&told["tree"]["label"], &told["tree"]["holds"]), (&"all of".into(), &false.into()));
    assert_eq!(told["tree"]["children"][0]["label"], "item:delete");
    assert_eq!(told["would_need"].as_array().unwrap().len(), 2, "{told}");

    let auditor = issuer.with_roles("ada", &["ROLE_AUDITOR"]);
    let request = format!(
        "GET /api/decisions/{} HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\nAuthorization: Bearer {auditor}\r\n\r\n",
        id(&denied)
    );
    let text = crate::harness::Connection::open(running.admin).send(request).response().text();
    for part in
        ["DENY   permission_missing (403)  DELETE /items/7\n", "  ✗ all of\n    ✗ item:delete", "to be allowed: "]
    {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn every_kind_of_denial_is_remembered() {
    let (running, upstream, issuer) = started();
    let missing = explained(&running, &issuer, &running.get("/items"));
    assert_eq!((&missing["reason"], &missing["subject"]), (&"missing_token".into(), &Value::Null));
    assert_eq!((&missing["would_need"][0], &missing["tree"]["holds"]), (&"a valid token".into(), &false.into()));
    let expired = issuer.token().claim("exp", 1_000_000).claim("iat", 999_000).sign();
    assert_eq!(explained(&running, &issuer, &running.get_as("/items", &expired))["reason"], "expired");
    let closed = explained(&running, &issuer, &running.get("/closed"));
    assert_eq!((&closed["reason"], &closed["route"]), (&"route_denied".into(), &"/closed".into()));
    let nowhere = explained(&running, &issuer, &running.get("/nowhere"));
    assert_eq!((&nowhere["reason"], &nowhere["route"]), (&"no_route".into(), &Value::Null));
    let dots = explained(&running, &issuer, &running.get("/items/../x"));
    assert_eq!((&dots["reason"], &dots["path"]), (&"bad_request_target".into(), &"/items/../x".into()));
    let unread = explained(&running, &issuer, &running.send("GET /public HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"));
    assert_eq!((&unread["reason"], &unread["service"]), (&"bad_request".into(), &Value::Null));

    upstream.behave(Behaviour::Close);
    let failed = explained(&running, &issuer, &running.get_as("/items", &issuer.viewer()));
    assert_eq!((&failed["reason"], &failed["status"]), (&"upstream_unavailable".into(), &502.into()));
    assert_eq!((&failed["upstream"]["name"], &failed["upstream"]["answered"]), (&"oms".into(), &false.into()));
    assert_eq!((&failed["tree"]["holds"], &failed["would_need"]), (&true.into(), &Value::Null));
}

#[test]
fn of_what_was_allowed_one_in_so_many_is_remembered() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let running = builder(&issuer, &upstream).setting("admin.decisions.sample_every", 2).start();
    let answers: Vec<_> = (0..4).map(|_| running.get_as("/items", &issuer.viewer())).collect();
    let told = explained(&running, &issuer, &answers[3]);
    assert_eq!((&told["decision"], &told["reason"]), (&"allow".into(), &Value::Null));
    assert_eq!((&told["upstream"]["name"], &told["upstream"]["status"]), (&"oms".into(), &200.into()));
    assert_eq!((&told["tree"]["holds"], &told["would_need"]), (&true.into(), &Value::Null));
    let remembered = || running.metric("doorward_decisions_remembered", &["kind=\"sample\""]);
    eventually("two of four", Duration::from_secs(20), || (remembered() == 2.0).then_some(()));
    assert!(running.metric("doorward_decisions_remembered_bytes", &[]) > 0.0);
}

#[test]
fn what_report_mode_let_through_is_remembered() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let running = builder(&issuer, &upstream).setting("gateway.mode", "report").start();
    let told = explained(&running, &issuer, &running.request("DELETE", "/items/7", &issuer.viewer(), &[], ""));
    assert_eq!((&told["decision"], &told["would_deny"]), (&"allow".into(), &"permission_missing".into()));
    assert_eq!((&told["tree"]["holds"], &told["upstream"]["status"]), (&false.into(), &200.into()));
}

#[test]
fn the_ring_is_bounded_and_can_be_switched_off() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let running = builder(&issuer, &upstream).setting("admin.decisions.denials", 4).start();
    let denied: Vec<_> = (0..10).map(|_| running.get("/items")).collect();
    explained(&running, &issuer, &denied[9]);
    let auditor = issuer.with_roles("ada", &["ROLE_AUDITOR"]);
    assert_eq!(asked(&running, Some(&auditor), &id(&denied[5])).status, 404);
    assert_eq!(running.metric("doorward_decisions_remembered", &["kind=\"denial\""]), 4.0);

    let off = [("admin.decisions.denials", 0), ("admin.decisions.samples", 0)];
    let running =
        off.iter().fold(builder(&issuer, &upstream), |builder, (key, none)| builder.setting(key, *none)).start();
    let denied = running.get("/items");
    assert_eq!(denied.status, 401);
    assert_eq!(asked(&running, Some(&auditor), &id(&denied)).status, 404);
    assert_eq!(running.metric("doorward_decisions_remembered", &[]), 0.0);
}

#[test]
fn a_decision_is_explained_by_the_policy_that_made_it() {
    let (running, _upstream, issuer) = started();
    let denied = running.request("DELETE", "/items/7", &issuer.viewer(), &[], "");
    let before = explained(&running, &issuer, &denied);
    let publish = |text: String| {
        let version = running.metric("doorward_snapshot_version", &[]);
        std::fs::write(running.path("policy0.yaml"), text).unwrap();
        running.signal("-HUP");
        eventually("the new policy", Duration::from_secs(20), || {
            (running.metric("doorward_snapshot_version", &[]) > version).then_some(())
        });
    };
    publish(POLICY.replace("item:delete, item:edit", "item:view"));
    assert_eq!(running.request("DELETE", "/items/7", &issuer.viewer(), &[], "").status, 200);
    let after = explained(&running, &issuer, &denied);
    assert_eq!(after, before, "what is in force now is not what denied it");
    for number in 0..3 {
        publish(format!("{POLICY}  /new{number}: {{ get: public }}\n"));
    }
    let told = explained(&running, &issuer, &denied);
    assert_eq!(told["tree"], Value::Null);
    for key in ["snapshot", "route", "file", "sha256", "reason", "requirement"] {
        assert_eq!(told[key], before[key], "{key}");
    }
}

#[test]
fn t30_decisions_need_their_permission() {
    let (running, _upstream, issuer) = started();
    let denied = running.get("/items");
    explained(&running, &issuer, &denied);
    assert_eq!(asked(&running, None, &id(&denied)).denial(), (401, "missing_token".into()));
    assert_eq!(asked(&running, Some(&issuer.viewer()), &id(&denied)).denial(), (403, "permission_missing".into()));
    let auditor = issuer.with_roles("ada", &["ROLE_AUDITOR"]);
    assert_eq!(asked(&running, Some(&auditor), "never-was").status, 404);
}

#[test]
fn t30_decisions_are_filtered_by_service() {
    let (running, _upstream, issuer) = started();
    let oms = running.get("/items");
    let shopping = running.send("GET /carts HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    let unread = running.send("GET /public HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    for response in [&oms, &shopping, &unread] {
        explained(&running, &issuer, response);
    }
    let scoped = issuer.with_roles("olga", &["ROLE_OMS_AUDITOR"]);
    assert_eq!(asked(&running, Some(&scoped), &id(&oms)).status, 200);
    let never = asked(&running, Some(&scoped), "never-was");
    for hidden in [&shopping, &unread] {
        let answer = asked(&running, Some(&scoped), &id(hidden));
        let without_id = |response: &Response| {
            let mut json = response.json();
            json["request_id"].take();
            (response.status, json)
        };
        assert_eq!(without_id(&answer), without_id(&never), "as if it never was");
    }
    // What is about everybody is not opened by a role of one service.
    let revoke = |token: &str| running.admin_request("POST", "/api/revocations", Some(token), r#"{"jti": "x"}"#);
    assert_eq!(revoke(&scoped).denial(), (403, "permission_missing".into()));
    assert_eq!(revoke(&issuer.with_roles("root", &["ROLE_SUPER_ADMIN"])).status, 200);
}

#[test]
fn t30_entries_hold_no_query_cookie_or_token() {
    let (running, _upstream, issuer) = started();
    let token = issuer.viewer();
    let fields = [("Cookie", "sid=c00kie-value"), ("X-Api-Key", "k3y-value")];
    let denied = running.request("DELETE", "/items/7?q=qu3ry-value", &token, &fields, "");
    let raw = running.request("DELETE", "/items/../7?q=qu3ry-value", &token, &fields, "");
    for response in [denied, raw] {
        let told = explained(&running, &issuer, &response).to_string();
        let signature = token.rsplit('.').next().unwrap();
        for secret in ["qu3ry", "c00kie", "k3y-value", signature, &token[..20]] {
            assert!(!told.contains(secret), "{secret} is in {told}");
        }
    }
}
