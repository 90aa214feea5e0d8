use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::delegate::Told;
use crate::https::{ClientSettings, TlsTrust, plain_client};
use crate::token::issuer::Confers;

/// Longer than anything here takes, though the machine stood still.
const LONG: Duration = Duration::from_mins(1);

/// A user service: it accepts every token, holds every permission of `oms`, and never answers about a token that begins with `junk`.
#[derive(Default)]
struct Service {
    /// What it was asked: the token, and the body.
    asked: Mutex<Vec<(String, String)>>,
}

impl Service {
    async fn start() -> (Arc<Self>, String) {
        let service = Arc::<Self>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = Arc::clone(&service);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&serving).serve(stream));
            }
        });
        (service, url)
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let mut text = String::new();
        let (head, body) = loop {
            let mut part = [0; 4096];
            let read = stream.read(&mut part).await.unwrap();
            text.push_str(std::str::from_utf8(&part[..read]).unwrap());
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                break (head, body);
            }
        };
        let token = head.lines().find_map(|line| line.strip_prefix("authorization: Bearer ")).unwrap();
        self.asked.lock().unwrap().push((token.to_owned(), body.to_owned()));
        if token.starts_with("junk") {
            return std::future::pending().await;
        }
        let question: Value = serde_json::from_str(body).unwrap_or_default();
        let holds = question["service"] == "oms";
        let answer = match (question["permissions"].as_array(), head.starts_with("GET")) {
            (_, true) => json!({"sub": token}),
            (None, false) => json!({"allowed": holds}),
            (Some(codes), false) => {
                let each = codes.iter().map(|code| (code.as_str().unwrap().to_owned(), holds.into()));
                json!({"results": each.collect::<serde_json::Map<_, _>>()})
            }
        };
        let answer = answer.to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
        stream.write_all((head + &answer).as_bytes()).await.unwrap();
    }

    fn questions(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn vouching() -> Vouching {
    Vouching {
        confers: Confers::Any,
        admin: false,
        verifies_email: false,
        leeway: 0,
        max_lifetime: 60,
        one_spelling: false,
    }
}

/// Who asks at a URL, so many questions at a time, and remembers nothing.
fn asking(url: &str, questions: usize) -> Arc<Iam<()>> {
    let trust = TlsTrust { ca: None, identity: None };
    let client = ClientSettings { tls: trust, connect: LONG, total: LONG, idle_connections: 1 };
    let limits = IamLimits { cache: Duration::ZERO, timeout: LONG, questions, memory: 1 << 20 };
    Iam::new(url, plain_client(&client).unwrap(), vouching(), limits, Handle::current(), Arc::default())
}

impl<E: Send + Sync + 'static> Iam<E> {
    /// One that has no place for any question, and the runtime on which it would ask: for rooms that know of no runtime.
    pub(crate) fn without_places(vouching: Vouching) -> (Arc<Self>, tokio::runtime::Runtime) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let trust = TlsTrust { ca: None, identity: None };
        let client = ClientSettings { tls: trust, connect: LONG, total: LONG, idle_connections: 1 };
        let limits = IamLimits { cache: LONG, timeout: LONG, questions: 0, memory: 1 << 20 };
        let (client, handle) = (plain_client(&client).unwrap(), runtime.handle().clone());
        (Self::new("http://127.0.0.1:9", client, vouching, limits, handle, Arc::default()), runtime)
    }
}

async fn who_is(iam: &Arc<Iam<()>>, token: &str) -> Result<Box<str>, NoAnswer> {
    let mut told = Told::default();
    iam.ask_userinfo_again(token).answer(&mut told).await;
    told.userinfo().unwrap().what.map(|entry| entry.claims.subject.clone())
}

#[tokio::test]
async fn permissions_of_two_services_are_two_questions() {
    let (service, url) = Service::start().await;
    let iam = asking(&url, 4);
    let entry = Arc::new(Entry::vouched("t", vouching().claims(Unverified::default(), br#"{"sub": "t"}"#).unwrap()));
    let key = |service: &str, code| PermissionKey {
        token: TokenId::of("t"),
        service: service.into(),
        code: PermissionCode::parse(code).unwrap(),
    };
    // As where a reload gives the route another service while a request waits.
    let keys = vec![key("oms", "a:b"), key("shop", "a:b"), key("oms", "a:c")];
    let mut told = Told::default();
    iam.ask_permissions(&entry, keys.clone()).answer(&mut told).await;
    let answers: Vec<_> = keys.iter().map(|key| told.permission(key).unwrap().what).collect();
    assert_eq!(answers, [Ok(true), Ok(false), Ok(true)], "what one service says is nothing that the other said");
    assert_eq!(service.questions(), 2);
}

#[tokio::test]
async fn strangers_leave_half_of_the_places_to_whom_the_service_accepted() {
    for questions in [2, 4] {
        let (service, url) = Service::start().await;
        let iam = asking(&url, questions);
        assert_eq!(who_is(&iam, "alice").await, Ok("alice".into()));
        let room = questions * 65 / 2;
        let junk: Vec<_> = (0..room + 50).map(|number| iam.ask_userinfo_again(&format!("junk{number}"))).collect();
        let (mut refused, mut waiting) = (0, tokio::task::JoinSet::new());
        for question in junk {
            waiting.spawn(async move {
                let mut told = Told::<()>::default();
                question.answer(&mut told).await;
                told.userinfo().unwrap().what.err()
            });
        }
        while refused < 50 {
            assert_eq!(waiting.join_next().await.unwrap().unwrap(), Some(NoAnswer::NotAsked), "there is no more room");
            refused += 1;
        }
        while service.questions() < 1 + questions / 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for _ in 0..5 {
            assert_eq!(who_is(&iam, "alice").await, Ok("alice".into()), "of {questions}");
        }
        assert_eq!(who_is(&iam, "bob").await, Err(NoAnswer::NotAsked), "nobody knows whether he is one");
        let junk = service.asked.lock().unwrap().iter().filter(|(token, _)| token.starts_with("junk")).count();
        assert_eq!(junk, questions / 2);
    }
}
