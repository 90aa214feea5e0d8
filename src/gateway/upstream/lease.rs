//! What a request holds while it is under way: a place among those in flight, and a connection or a part of one.

use std::sync::Arc;
use std::time::Instant;

use hyper::client::conn::http1::SendRequest;

use super::super::body::RequestBody;
use super::http2::OpenStream;
use super::memory::Memory;
use super::pool::EndpointPool;
use crate::telemetry::UpstreamConnection;

/// A connection in use. An HTTP/1.1 connection goes back to its pool by [`Lease::give_back`] alone; dropped otherwise, it is
/// closed, because something of the exchange is still on the wire (or, after a 101, another protocol).
pub struct Lease {
    pub(super) connection: Connection,
    pub(super) place: Place,
}

/// A connection, or a part of one.
pub(super) enum Connection {
    Http1(Pooled),
    Http2(OpenStream),
}

/// A connection that carries one exchange at a time.
pub(super) struct Pooled {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) memory: Arc<Memory>,
    pub(super) since: Instant,
    pub(super) gauge: UpstreamConnection,
}

impl Lease {
    /// Gives the connection back after the answer was read to its end.
    pub fn give_back(self, now: Instant) {
        if let Connection::Http1(pooled) = self.connection {
            self.place.pool.keep(pooled, now);
        }
    }
}

/// A place among the requests in flight, and the load on an endpoint. It is given back when it is dropped.
pub(super) struct Place {
    pub(super) pool: Arc<EndpointPool>,
    /// Whether the endpoint's load is counted: it is where there is a choice.
    counted: bool,
}

impl Place {
    /// Takes over a place that the gate gave, and adds to the endpoint's load.
    pub(super) fn new(pool: &Arc<EndpointPool>, counted: bool) -> Self {
        if counted {
            pool.state.begin();
        }
        Self { pool: Arc::clone(pool), counted }
    }

    /// Goes on with another endpoint of the same upstream.
    pub(super) fn move_to(&mut self, pool: &Arc<EndpointPool>) {
        if self.counted {
            self.pool.state.end();
            pool.state.begin();
        }
        self.pool = Arc::clone(pool);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.counted {
            self.pool.state.end();
        }
        self.pool.gate.leave();
    }
}
