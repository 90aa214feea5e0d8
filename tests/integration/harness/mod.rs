//! What the tests speak: `doorward().policy(…).upstream(&u).start()`, an upstream that follows a script,
//! an issuer of tokens, and a client that sends exactly the bytes it is given.

mod client;
mod corpora;
mod doorward;
mod issuer;
pub(crate) mod key_server;
pub(crate) mod link;
pub(crate) mod redis;
pub(crate) mod served;
pub(crate) mod tls;
mod upstream;
pub(crate) mod websocket;
mod wire;

pub(crate) use self::client::{Connection, Response};
pub(crate) use self::corpora::corpus;
pub(crate) use self::doorward::{Builder, Doorward, doorward, free_ports};
pub(crate) use self::issuer::{Issuer, now};
pub(crate) use self::upstream::{Behaviour, Received, Upstream};

use std::time::{Duration, Instant};

/// The policy that most tests use: one path of every kind.
pub(crate) const POLICY: &str = "
version: 1
service: oms
upstream: oms
paths:
  /public:
    get: public
    post: public
    head: public
  /me:
    get: authenticated
    post: authenticated
  /items:
    get: item:view
    post: item:create
  /items/{id}:
    get: item:view
    put: item:edit
    delete: { all: [item:delete, item:edit] }
  /users/{user_id}/orders:
    get: { any: [order:view-all, { all: [order:view, { owner: user_id }] }] }
  /closed:
    get: deny
";

/// The roles that go with [`POLICY`].
pub(crate) const ROLES: &str = "
version: 1
permissions:
  oms: [item:view, item:create, item:edit, item:delete, order:view, order:view-all]
roles:
  ROLE_VIEWER:
    permissions: [item:view, order:view]
  ROLE_EDITOR:
    parent: ROLE_VIEWER
    permissions: [item:create, item:edit]
  ROLE_SUPER_ADMIN:
    permissions: ['*']
tiers:
  oms: [{key: FREE, permissions: []}, {key: PREMIUM, permissions: [order:view-all]}]
";

/// Looks again and again until something is there, for at most `limit`.
pub(crate) fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
