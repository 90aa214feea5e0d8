//! A user service in FastAPI, the stack that such services run on: Argon2 passwords, python-jose tokens without `iss` and `aud`.

use std::process::Command;
use std::time::Duration;

use super::part::{Part, python};
use crate::harness::{Builder, Connection, Upstream, doorward, eventually};

const SECRET: &str = "a-shared-secret-of-more-than-32-bytes!";
/// It hashes with Argon2 in Python on a machine under load.
const SOON: Duration = Duration::from_secs(30);

struct UserService {
    part: Part,
    port: u16,
}

impl UserService {
    fn start() -> Self {
        Self::start_on(0)
    }

    fn start_on(port: u16) -> Self {
        let mut command: Command = python("user_service.py");
        command
            .args(["alice:correct-horse:USER:item.view,order.view", "root:battery-staple:ADMIN:item.view,item.edit"]);
        command.env("JWT_SECRET_KEY", SECRET).env("PORT", port.to_string());
        let mut part = Part::start("user_service.py", command);
        let port = part.until("its port", |lines| {
            lines.iter().find_map(|line| line.strip_prefix("port ")).map(|port| port.parse().unwrap())
        });
        let service = Self { part, port };
        eventually("it serves", SOON, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(()));
        service
    }

    fn post(&self, target: &str, body: &str) -> crate::harness::Response {
        let mut connection = Connection::open(([127, 0, 0, 1], self.port).into());
        connection.set_read_timeout(SOON);
        let length = body.len();
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: users\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        connection.send(head + body).response()
    }

    fn token(&self, name: &str, password: &str) -> String {
        let answer = self.post("/auth/login", &format!("{{\"username\": \"{name}\", \"password\": \"{password}\"}}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// How often it wrote a line that begins so.
    fn told(&self, beginning: &str) -> usize {
        self.part.lines().iter().filter(|line| line.starts_with(beginning)).count()
    }

    fn asked_by(&self, upstream: &Upstream) -> Builder {
        let confers = toml::Table::from_iter([("USER".to_owned(), "ROLE_VIEWER".into())]);
        doorward()
            .upstream(upstream)
            .env("AUTH_MODE", "iam_service")
            .env("IAM_SERVICE_URL", &format!("http://127.0.0.1:{}", self.port))
            .setting("auth.iam_service.timeout", "10s")
            // A thousand connections to the upstream at once take their time on a machine under load.
            .setting("upstreams.oms.timeouts.connect", "50s")
            .setting("auth.iam_service.confers", toml::Value::from(confers))
    }
}

#[test]
fn a_fastapi_user_service_says_who_asks_and_what_they_may() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    assert_eq!(service.post("/auth/login", r#"{"username": "alice", "password": "wrong"}"#).status, 401);
    let (alice, root) = (service.token("alice", "correct-horse"), service.token("root", "battery-staple"));
    let gateway = service.asked_by(&upstream).setting("auth.iam_service.cache", "2s").start();

    assert_eq!(gateway.get_as("/items", &alice).status, 200);
    let seen = upstream.last();
    assert_eq!((seen.field("x-user-id"), seen.field("x-user-name")), (Some("1"), Some("alice")));
    assert_eq!(seen.field("x-user-roles"), Some("ROLE_VIEWER"));
    assert_eq!(seen.field("x-user-email"), None, "nobody says that it is verified");
    assert_eq!(gateway.request("PUT", "/items/1", &alice, &[], "").denial(), (403, "permission_missing".into()));
    assert_eq!(gateway.request("PUT", "/items/1", &root, &[], "").status, 200);
    assert_eq!(upstream.last().field("x-user-roles"), None, "its ADMIN is nothing here");
    // One permission at a time is all that it knows.
    assert_eq!(gateway.request("DELETE", "/items/1", &root, &[], "").denial(), (403, "permission_missing".into()));
    let told = || service.told("check root item:delete in oms: False");
    eventually("it was asked", SOON, || (told() > 0).then_some(()));
    assert_eq!(told(), 1);

    let forged = format!("{}x", &alice[..alice.len() - 1]);
    let forged = if forged == alice { format!("{}y", &alice[..alice.len() - 1]) } else { forged };
    assert_eq!(gateway.get_as("/items", &forged).denial(), (401, "token_rejected".into()));
    // Deactivated there, refused here as soon as the answer is too old.
    assert_eq!(service.post("/users/1/deactivate", "").status, 200);
    eventually("it is refused", SOON, || {
        let answer = gateway.get_as("/items", &alice);
        (answer.status != 200).then(|| assert_eq!(answer.denial(), (401, "token_rejected".into())))
    });
}

#[test]
fn a_fastapi_user_service_is_asked_once_by_a_stampede_and_its_death_is_no_access() {
    let (mut service, upstream) = (UserService::start(), Upstream::echo());
    let alice = service.token("alice", "correct-horse");
    let gateway = service.asked_by(&upstream).setting("auth.iam_service.cache", "5s").start();
    let mut open: Vec<Connection> = (0..1000).map(|_| gateway.connect()).collect();
    let request = format!("GET /items HTTP/1.1\r\nHost: oms.test\r\nAuthorization: Bearer {alice}\r\n\r\n");
    let began = std::time::Instant::now();
    for connection in &mut open {
        connection.set_read_timeout(Duration::from_secs(60));
        connection.send(&request);
    }
    assert!(open.iter_mut().all(|connection| connection.response().status == 200));
    // On a machine that needs longer for a thousand requests than an answer is good for, it may be asked again.
    let is_quick = began.elapsed() < Duration::from_secs(4);
    let told = || (service.told("userinfo alice"), service.told("check alice item:view"));
    eventually("it was asked both", SOON, || (told().0 > 0 && told().1 > 0).then_some(()));
    if is_quick {
        assert_eq!(told(), (1, 1));
    }
    let port = service.port;
    drop(service);
    eventually("its last answer is too old", SOON, || {
        let answer = gateway.get_as("/items", &alice);
        (answer.status != 200).then(|| assert_eq!(answer.denial(), (503, "auth_unavailable".into())))
    });
    let before = upstream.count();
    assert_eq!(gateway.get_as("/items", &alice).status, 503);
    assert_eq!(upstream.count(), before);
    service = UserService::start_on(port);
    eventually("it is back", SOON, || (gateway.get_as("/items", &alice).status == 200).then_some(()));
    assert!(service.told("userinfo alice") >= 1);
}

#[test]
fn its_tokens_are_good_in_local_mode_too() {
    let (service, upstream) = (UserService::start(), Upstream::echo());
    let alice = service.token("alice", "correct-horse");
    let issuer: toml::Table = toml::from_str(
        "name = \"users\"\nkeys = \"secret\"\nsame_subjects = true\nclaims = { roles = \"role\" }\nconfers = { USER = \"ROLE_VIEWER\" }",
    )
    .unwrap();
    let gateway = doorward()
        .upstream(&upstream)
        .setting("auth.issuers", vec![toml::Value::from(issuer)])
        .env("JWT_SECRET_KEY", SECRET)
        .start();
    assert_eq!(gateway.get_as("/items", &alice).status, 200);
    let seen = upstream.last();
    assert_eq!((seen.field("x-user-id"), seen.field("x-user-roles")), (Some("1"), Some("ROLE_VIEWER")));
    assert_eq!(service.told("userinfo"), 0, "nobody was asked");
    assert_eq!(gateway.get_as("/items", &alice.replace('.', "..")).status, 401);
}
