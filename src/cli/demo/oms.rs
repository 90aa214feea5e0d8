//! The example service: schemas in memory, and not a line of auth code.
//!
//! It believes the `X-User-*` headers that stand before it, as a legacy service behind a gateway does. Nothing but the
//! gateway can reach it in earnest; here it listens on 127.0.0.1.

use std::collections::{BTreeMap, VecDeque};
use std::future::IntoFuture;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context as _;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// Most schemas that are kept, and most changes that are remembered.
const CAPACITY: usize = 1000;

/// A running example service.
#[derive(Debug)]
pub(super) struct Oms {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Oms {
    /// Serves on its own thread.
    pub(super) fn start(listener: TcpListener) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            runtime.block_on(async move {
                tokio::select! {
                    // axum's loop ends with the runtime; it fails on nothing but a closed listener.
                    _ = IntoFuture::into_future(axum::serve(listener, router())) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("demo-oms".to_owned()).spawn(serve);
        Ok(Self { address, stop, thread: thread.context("cannot start the example service")? })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it.
    pub(super) fn stop(self) {
        // If the thread is gone already, there is nothing left to stop.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

#[derive(Debug, Clone, Serialize)]
struct Schema {
    id: u64,
    name: String,
    fields: Value,
    created_by: Option<String>,
    created_by_name: Option<String>,
    updated_by: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Draft {
    name: String,
    #[serde(default)]
    fields: Value,
}

#[derive(Debug, Clone, Serialize)]
struct Change {
    action: &'static str,
    schema: u64,
    by: Option<String>,
}

#[derive(Debug, Default)]
struct Store {
    schemas: BTreeMap<u64, Schema>,
    changes: VecDeque<Change>,
    last: u64,
}

impl Store {
    fn note(&mut self, action: &'static str, schema: u64, by: Option<String>) {
        if self.changes.len() == CAPACITY {
            self.changes.pop_front();
        }
        self.changes.push_back(Change { action, schema, by });
    }
}

type Shared = Arc<Mutex<Store>>;

fn router() -> Router {
    let mut store = Store { last: 1, ..Store::default() };
    let customer = Schema {
        id: 1,
        name: "customer".to_owned(),
        fields: json!({ "id": "uuid", "email": "text" }),
        created_by: None,
        created_by_name: None,
        updated_by: None,
    };
    store.schemas.insert(1, customer);
    Router::new()
        .route("/health", get(async || Json(json!({ "status": "up" }))))
        .route("/api/v1/schema", get(list).post(create))
        .route("/api/v1/schema/{id}", get(show).put(update).delete(remove))
        .route("/api/v1/changes", get(changes))
        .with_state(Arc::new(Mutex::new(store)))
}

async fn list(State(store): State<Shared>) -> Response {
    let schemas: Vec<Schema> = lock(&store).schemas.values().cloned().collect();
    Json(schemas).into_response()
}

async fn create(State(store): State<Shared>, headers: HeaderMap, Json(draft): Json<Draft>) -> Response {
    let mut store = lock(&store);
    if store.schemas.len() == CAPACITY {
        return (StatusCode::INSUFFICIENT_STORAGE, Json(json!({ "error": "the example is full" }))).into_response();
    }
    store.last += 1;
    let user = header(&headers, "x-user-id");
    let schema = Schema {
        id: store.last,
        name: draft.name,
        fields: draft.fields,
        created_by: user.clone(),
        created_by_name: header(&headers, "x-user-name").map(|name| percent_decoded(&name)),
        updated_by: user.clone(),
    };
    store.schemas.insert(schema.id, schema.clone());
    store.note("created", schema.id, user);
    (StatusCode::CREATED, [("location", format!("/api/v1/schema/{}", schema.id))], Json(schema)).into_response()
}

async fn show(State(store): State<Shared>, Path(id): Path<u64>) -> Response {
    lock(&store).schemas.get(&id).map_or_else(not_found, |schema| Json(schema).into_response())
}

async fn update(
    State(store): State<Shared>,
    Path(id): Path<u64>,
    headers: HeaderMap,
    Json(draft): Json<Draft>,
) -> Response {
    let mut store = lock(&store);
    let user = header(&headers, "x-user-id");
    let Some(schema) = store.schemas.get_mut(&id) else { return not_found() };
    schema.name = draft.name;
    schema.fields = draft.fields;
    schema.updated_by.clone_from(&user);
    let answer = Json(schema.clone()).into_response();
    store.note("updated", id, user);
    answer
}

async fn remove(State(store): State<Shared>, Path(id): Path<u64>, headers: HeaderMap) -> Response {
    let mut store = lock(&store);
    if store.schemas.remove(&id).is_none() {
        return not_found();
    }
    store.note("deleted", id, header(&headers, "x-user-id"));
    StatusCode::NO_CONTENT.into_response()
}

async fn changes(State(store): State<Shared>) -> Response {
    let changes: Vec<Change> = lock(&store).changes.iter().cloned().collect();
    Json(changes).into_response()
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, Json(json!({ "error": "there is no such schema" }))).into_response()
}

fn lock(store: &Shared) -> std::sync::MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Names travel percent-encoded, because a header holds ASCII only.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escape = match rest {
            [b'%', high, low, ..] => {
                (char::from(*high).to_digit(16)).zip(char::from(*low).to_digit(16)).map(|(high, low)| high * 16 + low)
            }
            _ => None,
        };
        match escape.and_then(|byte| u8::try_from(byte).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn ask(address: SocketAddr, request: &str, body: &str) -> String {
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        let length = body.len();
        let head = format!(
            "{request} HTTP/1.1\r\nHost: oms\r\nConnection: close\r\nX-User-Id: emil\r\nX-User-Name: Emil%20%C5%A0koda\r\n"
        );
        write!(socket, "{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn it_keeps_schemas_and_stamps_whoever_the_headers_name() {
        let oms = Oms::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let at = oms.address();
        assert!(ask(at, "GET /health", "").starts_with("HTTP/1.1 200"));
        assert!(ask(at, "GET /api/v1/schema", "").contains("\"name\":\"customer\""));
        let created = ask(at, "POST /api/v1/schema", "{\"name\":\"order\"}");
        assert!(created.starts_with("HTTP/1.1 201"), "{created}");
        assert!(
            created.contains("\"created_by\":\"emil\",\"created_by_name\":\"Emil Škoda\",\"updated_by\":\"emil\""),
            "{created}"
        );
        assert!(ask(at, "PUT /api/v1/schema/1", "{\"name\":\"client\"}").contains("\"updated_by\":\"emil\""));
        assert!(ask(at, "DELETE /api/v1/schema/1", "").starts_with("HTTP/1.1 204"));
        assert!(ask(at, "GET /api/v1/schema/1", "").starts_with("HTTP/1.1 404"));
        assert!(ask(at, "GET /api/v1/changes", "").contains("{\"action\":\"deleted\",\"schema\":1,\"by\":\"emil\"}"));
        oms.stop();
        assert!(std::net::TcpStream::connect(at).is_err());
    }

    #[test]
    fn names_are_decoded_and_what_is_no_escape_stays() {
        assert_eq!(percent_decoded("Emil%20%C5%A0koda"), "Emil Škoda");
        assert_eq!(percent_decoded("100% %zz %4"), "100% %zz %4");
    }
}
