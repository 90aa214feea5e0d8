//! No client header can forge an identity, and what doorward says of a caller is true (SPEC 3.7; T22, T23, T27).

use crate::harness::{Behaviour, Doorward, Issuer, POLICY, Upstream, doorward};

/// What doorward sets itself (SPEC 3.7).
const SET_BY_DOORWARD: [&str; 13] = [
    "X-User-Id",
    "X-User-Name",
    "X-User-Email",
    "X-User-Roles",
    "X-User-Memberships",
    "X-Auth-Method",
    "X-Auth-Session",
    "X-User-Assertion",
    "X-Request-Id",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "Forwarded",
];

/// What an upstream may still trust from another proxy (T23).
const OF_OTHER_PROXIES: [&str; 14] = [
    "Remote-User",
    "X-Remote-User",
    "X-Forwarded-User",
    "X-Forwarded-Groups",
    "X-Forwarded-Email",
    "X-Auth-Request-User",
    "X-Auth-Request-Access-Token",
    "X-WEBAUTH-USER",
    "X-WEBAUTH-ROLES",
    "X-SSL-Client-CN",
    "X-SSL-Client-Verify",
    "X-Client-Cert",
    "X-Forwarded-Client-Cert",
    "X-Auth-Request-Email",
];

/// Every spelling under which CGI, WSGI and their like would read the same variable.
fn spellings(name: &str) -> Vec<String> {
    let alternating = |name: &str| -> String {
        let upper = |(at, letter): (usize, char)| {
            if at % 2 == 0 { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }
        };
        name.chars().enumerate().map(upper).collect()
    };
    let mut all = Vec::new();
    for name in [
        name.to_owned(),
        name.replace('-', "_"),
        name.replace('-', "."),
        name.replacen('-', "_", 1),
        name.replacen('-', ".", 1),
    ] {
        all.extend([name.to_lowercase(), name.to_uppercase(), alternating(&name), name]);
    }
    all.sort();
    all.dedup();
    all
}

fn guarded() -> (Doorward, Upstream, Issuer) {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let running = doorward().issuer(&issuer).upstream(&upstream).start();
    (running, upstream, issuer)
}

/// Sends the field lines on a public route without a token, on the same with one, and on a guarded one.
fn nothing_forged_arrives(running: &Doorward, upstream: &Upstream, token: &str, lines: &str) {
    for (target, authorization) in [
        ("/public", String::new()),
        ("/public", format!("Authorization: Bearer {token}\r\n")),
        ("/me", format!("Authorization: Bearer {token}\r\n")),
    ] {
        for (before, behind) in [(lines, authorization.as_str()), (authorization.as_str(), lines)] {
            let response = running.send(format!("GET {target} HTTP/1.1\r\nHost: oms.test\r\n{before}{behind}\r\n"));
            assert_eq!(response.status, 200, "{lines}\n{response:?}");
            let received = upstream.last();
            assert!(
                !received.text().contains("forged"),
                "{target} with\n{lines}gave the upstream\n{}",
                received.text()
            );
            let user = if authorization.is_empty() { None } else { Some("u-1") };
            assert_eq!(received.field("x-user-id"), user, "{lines}");
        }
    }
}

#[test]
fn no_spelling_of_a_header_that_doorward_sets_reaches_the_upstream() {
    let (running, upstream, issuer) = guarded();
    let token = issuer.viewer();
    for name in SET_BY_DOORWARD {
        // In groups, so that the limit on the number of headers is not what refuses them.
        let lines: String = spellings(name).iter().map(|name| format!("{name}: forged\r\n")).collect();
        nothing_forged_arrives(&running, &upstream, &token, &lines);
    }
}

#[test]
fn t23_headers_of_other_proxies_are_stripped_in_every_spelling() {
    let (running, upstream, issuer) = guarded();
    let token = issuer.viewer();
    for name in OF_OTHER_PROXIES {
        let lines: String = spellings(name).iter().map(|name| format!("{name}: forged\r\n")).collect();
        nothing_forged_arrives(&running, &upstream, &token, &lines);
    }
}

#[test]
fn t23_a_policy_names_further_headers_to_strip() {
    let (upstream, issuer) = (Upstream::echo(), Issuer::hs256());
    let policy = format!("{POLICY}\nstrip: [X-Tenant, X-Legacy-User]\n");
    let running = doorward().policy(&policy).issuer(&issuer).upstream(&upstream).start();
    for name in ["X-Tenant", "X-Legacy-User"] {
        let lines: String = spellings(name).iter().map(|name| format!("{name}: forged\r\n")).collect();
        nothing_forged_arrives(&running, &upstream, &issuer.viewer(), &lines);
    }
}

#[test]
fn duplicates_do_not_survive_the_stripping() {
    let (running, upstream, issuer) = guarded();
    let lines =
        "X-User-Id: forged\r\nAccept: a\r\nx-user-id: forged\r\nX_USER_ID: forged\r\nX-User-Id: forged, u-1\r\n";
    nothing_forged_arrives(&running, &upstream, &issuer.viewer(), lines);
}

#[test]
fn a_connection_header_cannot_remove_what_doorward_sets() {
    let (running, upstream, issuer) = guarded();
    let token = issuer.viewer();
    for nominated in
        ["X-User-Id", "x-user-id, X-User-Roles, X-Auth-Method, X-Request-Id", "keep-alive, X-User-Roles, close"]
    {
        for authorization_first in [true, false] {
            let authorization = format!("Authorization: Bearer {token}\r\n");
            let nomination = format!("Connection: {nominated}\r\n");
            let fields = if authorization_first { authorization + &nomination } else { nomination + &authorization };
            let response = running.send(format!("GET /me HTTP/1.1\r\nHost: oms.test\r\n{fields}\r\n"));
            assert_eq!(response.status, 200, "{response:?}");
            let received = upstream.last();
            assert_eq!(received.field("x-user-id"), Some("u-1"), "{nominated}");
            assert_eq!(received.field("x-user-roles"), Some("ROLE_VIEWER"), "{nominated}");
            assert_eq!(received.field("x-auth-method"), Some("bearer"), "{nominated}");
            assert!(received.field("x-request-id").is_some(), "{nominated}");
        }
    }
}

#[test]
fn what_connection_nominates_and_hop_by_hop_headers_stay_here() {
    let (running, upstream, _) = guarded();
    let fields = "Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authorization: Basic eDp5\r\n\
                  Proxy-Connection: keep-alive\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nX-End: 1\r\n";
    running.send(format!("GET /public HTTP/1.1\r\nHost: oms.test\r\n{fields}\r\n"));
    let received = upstream.last();
    for gone in ["x-hop", "keep-alive", "proxy-authorization", "proxy-connection", "upgrade"] {
        assert_eq!(received.field(gone), None, "{}", received.text());
    }
    assert_eq!(received.field("te"), Some("trailers"));
    assert_eq!(received.field("x-end"), Some("1"));
}

#[test]
fn trailers_cannot_carry_an_identity() {
    let (running, upstream, issuer) = guarded();
    let token = issuer.viewer();
    let response = running.send(format!(
        "POST /me HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\
         Trailer: X-User-Id, x_user_roles, Remote-User, X-Checksum\r\n\r\n\
         5\r\nhello\r\n0\r\nX-User-Id: forged\r\nx_user_roles: forged\r\nRemote-User: forged\r\nX-Checksum: 42\r\n\r\n"
    ));
    assert_eq!(response.status, 200, "{response:?}");
    let received = upstream.last();
    assert_eq!(received.body, b"hello");
    assert_eq!(received.field("x-user-id"), Some("u-1"));
    assert!(!received.text().contains("forged"), "{}", received.text());
    assert_eq!(received.trailers, [("x-checksum".to_owned(), "42".to_owned())], "innocent trailers pass");
}

#[test]
fn the_upstream_is_told_who_the_caller_is() {
    let (running, upstream, issuer) = guarded();
    let token = issuer
        .token()
        .claim("sub", "user-7")
        .claim("roles", ["ROLE_VIEWER", "ROLE_EDITOR"])
        .claim("name", "Kim Minji")
        .claim("email", "kim@example.com")
        .claim("email_verified", true)
        .sign();
    let response = running.get_as("/items/7?full=1", &token);
    assert_eq!(response.status, 200, "{response:?}");
    let received = upstream.last();
    assert_eq!(received.target, "/items/7?full=1");
    assert_eq!(received.field("x-user-id"), Some("user-7"));
    assert_eq!(received.field("x-user-roles"), Some("ROLE_EDITOR,ROLE_VIEWER"));
    assert_eq!(received.field("x-user-name"), Some("Kim Minji"));
    assert_eq!(received.field("x-user-email"), Some("kim@example.com"));
    assert_eq!(received.field("x-auth-method"), Some("bearer"));
    assert_eq!(received.field("x-request-id"), response.field("x-request-id"), "one id for client and upstream");
    let trace = received.field("traceparent").expect("a trace context");
    assert_eq!((trace.len(), &trace[..3]), (55, "00-"), "{trace}");
}

#[test]
fn a_missing_claim_leaves_its_header_absent() {
    let (running, upstream, issuer) = guarded();
    running.get_as("/me", &issuer.token().without("roles").sign());
    let received = upstream.last();
    assert_eq!(received.field("x-user-id"), Some("u-1"));
    for absent in ["x-user-name", "x-user-email", "x-user-memberships", "x-auth-session", "x-user-assertion"] {
        assert_eq!(received.field(absent), None);
    }
}

#[test]
fn a_public_route_knows_the_caller_only_by_a_valid_token() {
    let (running, upstream, issuer) = guarded();
    assert_eq!(running.get_as("/public", &issuer.viewer()).status, 200);
    assert_eq!(upstream.last().field("x-user-id"), Some("u-1"));

    let expired = issuer.token().claim("iat", 1_000_000).claim("exp", 1_000_600).sign();
    for bad in [expired.as_str(), "no.token.at-all", &Issuer::hs256().viewer()] {
        let response = running.get_as("/public", bad);
        assert_eq!(response.status, 200, "a public route asks nobody: {response:?}");
        let received = upstream.last();
        for name in SET_BY_DOORWARD.iter().filter(|name| name.starts_with("X-User") || name.starts_with("X-Auth")) {
            assert_eq!(received.field(name), None, "{name} of a bad token");
        }
    }
    assert_eq!(running.get("/public").status, 200);
    assert_eq!(upstream.last().field("x-user-id"), None);
}

#[test]
fn authorization_stays_here_unless_the_policy_forwards_it() {
    let (running, upstream, issuer) = guarded();
    let token = issuer.viewer();
    for target in ["/public", "/me"] {
        running.get_as(target, &token);
        assert_eq!(upstream.last().field("authorization"), None, "{target}");
        assert!(!upstream.last().text().contains(&token));
    }

    let policy = format!("{POLICY}\nforward_authorization: true\n");
    let running = doorward().policy(&policy).issuer(&issuer).upstream(&upstream).start();
    running.get_as("/me", &token);
    assert_eq!(upstream.last().field("authorization"), Some(format!("Bearer {token}").as_str()));
}

#[test]
fn t22_names_are_percent_encoded() {
    let (running, upstream, issuer) = guarded();
    for (name, encoded) in [
        ("Zo\u{eb} 100%", "Zo%C3%AB 100%25"),
        ("a\r\nX-User-Roles: ROLE_SUPER_ADMIN", "a%0D%0AX-User-Roles: ROLE_SUPER_ADMIN"),
        ("\u{7f}\u{0}~", "%7F%00~"),
    ] {
        let response = running.get_as("/me", &issuer.token().claim("name", name).sign());
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(upstream.last().field("x-user-name"), Some(encoded));
        assert_eq!(upstream.last().field("x-user-roles"), Some("ROLE_VIEWER"));
    }
}

#[test]
fn t22_role_keys_outside_the_grammar_grant_nothing_and_appear_nowhere() {
    let (running, upstream, issuer) = guarded();
    let roles = ["x,ROLE_SUPER_ADMIN", "ROLE_VIEWER", "role_editor", "ROLE_", "ROLE_A B", "ROLE_EDITOR\r\nX-A: b"];
    let token = issuer.with_roles("u-1", &roles);
    assert_eq!(running.get_as("/me", &token).status, 200);
    assert_eq!(upstream.last().field("x-user-roles"), Some("ROLE_VIEWER"));
    assert_eq!(running.request("POST", "/items", &token, &[], "{}").denial(), (403, "permission_missing".into()));
}

#[test]
fn t22_a_subject_with_odd_bytes_is_refused() {
    let (running, upstream, issuer) = guarded();
    let long = "x".repeat(129);
    for subject in ["", "a,b", "a=b", "a%b", "a b", "a\r\nb", "\u{e9}", &long] {
        let response = running.get_as("/me", &issuer.token().claim("sub", subject).sign());
        assert_eq!(response.denial(), (401, "malformed_token".into()), "{subject:?}");
    }
    assert_eq!(upstream.count(), 0);
    let longest = "x".repeat(128);
    assert_eq!(running.get_as("/me", &issuer.token().claim("sub", &longest).sign()).status, 200);
}

#[test]
fn t27_an_upstream_cannot_speak_in_doorwards_name() {
    let (running, upstream, issuer) = guarded();
    upstream.behave(Behaviour::With(vec![
        ("Doorward-Decision", "deny; reason=forged"),
        ("doorward-anything", "forged"),
        ("X-Request-Id", "forged"),
        ("X-User-Id", "forged"),
        ("X-User-Roles", "forged"),
        ("X-Auth-Method", "forged"),
        ("Alt-Svc", "h3=\"forged:443\""),
        ("X-Own", "kept"),
    ]));
    for response in [running.get("/public"), running.get_as("/me", &issuer.viewer())] {
        assert_eq!(response.status, 200);
        let head = String::from_utf8_lossy(&response.head).into_owned();
        assert!(!head.contains("forged"), "{head}");
        assert_eq!(response.field("x-own"), Some("kept"));
        assert!(response.field("x-request-id").is_some());
    }
}

#[test]
fn t27_no_spelling_helps_an_upstream_to_speak_in_doorwards_name() {
    let (running, upstream, issuer) = guarded();
    upstream.behave(Behaviour::With(vec![
        ("Doorward_Decision", "forged"),
        ("doorward.decision", "forged"),
        ("X_Request_Id", "forged"),
        ("x.request-id", "forged"),
        ("X_USER_ID", "forged"),
        ("X-User_Assertion", "forged"),
        ("x_auth_method", "forged"),
        ("X.Auth.Session", "forged"),
        ("Alt_Svc", "forged"),
        ("X-Request-Ids", "kept"),
        ("X-Userland", "kept"),
        ("X-Authority", "kept"),
        ("Alt-Svcs", "kept"),
        ("Doorwards", "kept"),
    ]));
    for response in [running.get("/public"), running.get_as("/me", &issuer.viewer())] {
        let head = String::from_utf8_lossy(&response.head).into_owned();
        assert!(!head.contains("forged"), "{head}");
        assert_eq!(head.matches("kept").count(), 5, "{head}");
    }
}

#[test]
fn t27_an_upstreams_interim_answers_stay_here() {
    let (running, upstream, _) = guarded();
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-User-Id: forged\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for before in [interim.to_owned(), interim.repeat(3), format!("HTTP/1.1 102 Processing\r\n\r\n{interim}")] {
        upstream.behave(Behaviour::Raw(format!("{before}{last}").into_bytes()));
        let head = running.connect().send("GET /public HTTP/1.1\r\nHost: oms.test\r\n\r\n").head();
        assert!(head.starts_with("HTTP/1.1 200") && !head.contains("forged"), "{head}");
    }
}

#[test]
fn t27_an_upstreams_trailers_say_nothing_in_doorwards_name() {
    let (running, upstream, _) = guarded();
    upstream.behave(Behaviour::Raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-User-Id, Doorward-Decision, Set-Cookie\r\n\r\n\
          2\r\nok\r\n0\r\nX-Sum: 42\r\nX-User-Id: forged\r\nDoorward-Decision: forged\r\nSet-Cookie: forged=1\r\n\r\n"
            .to_vec(),
    ));
    let response = running.send("GET /public HTTP/1.1\r\nHost: oms.test\r\nTE: trailers\r\n\r\n");
    assert_eq!(response.trailers, [("x-sum".to_owned(), "42".to_owned())]);
}

#[test]
fn t27_an_answer_to_a_known_caller_is_private() {
    let (running, upstream, issuer) = guarded();
    let token = issuer.viewer();
    upstream.behave(Behaviour::With(vec![("X-Own", "1")]));
    for target in ["/me", "/public"] {
        let response = running.get_as(target, &token);
        assert_eq!(response.field("cache-control"), Some("private"), "{target}: {response:?}");
        let vary = response.all("vary").join(",").to_lowercase();
        assert!(vary.contains("authorization"), "{target}: {response:?}");
    }
    assert_eq!(running.get("/public").field("cache-control"), None, "nobody in particular");

    upstream.behave(Behaviour::With(vec![("Cache-Control", "max-age=60")]));
    assert_eq!(running.get_as("/me", &token).field("cache-control"), Some("max-age=60"), "the upstream said so itself");
}

#[test]
fn t27_a_route_may_share_its_answers() {
    let (upstream, issuer) = (Upstream::start(Behaviour::With(vec![])), Issuer::hs256());
    let policy = "
version: 1
service: oms
upstream: oms
paths:
  /catalogue:
    get: { require: authenticated, cache: shared }
";
    let running = doorward().policy(policy).issuer(&issuer).upstream(&upstream).start();
    let response = running.get_as("/catalogue", &issuer.viewer());
    assert_eq!((response.status, response.field("cache-control")), (200, None), "{response:?}");
}

#[test]
fn t27_denials_are_never_stored() {
    let (running, upstream, issuer) = guarded();
    for response in [
        running.get("/me"),
        running.get("/nowhere"),
        running.get("/closed"),
        running.request("DELETE", "/items/1", &issuer.viewer(), &[], ""),
        running.request("PATCH", "/items", &issuer.viewer(), &[], ""),
        running.get_as("/items", "a.b.c"),
        running.get("/a/../b"),
        running.send("GET /items HTTP/1.1\r\nHost: a b\r\n\r\n"),
    ] {
        assert_eq!(response.field("cache-control"), Some("no-store"), "{response:?}");
    }
    upstream.behave(Behaviour::Close);
    let response = running.get_as("/me", &issuer.viewer());
    assert_eq!((response.status, response.field("cache-control")), (502, Some("no-store")));
}
