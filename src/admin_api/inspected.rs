//! Answers for heads that the connection's guard refused, before any router sees what stands in for them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::response::Response;
use hyper::body::Incoming;
use tower::Service;

use super::router::denied;
use crate::net::ConnectionState;

/// A router behind the guard of one connection.
#[derive(Clone)]
pub struct Inspected {
    router: Router,
    connection: Arc<ConnectionState>,
}

impl Inspected {
    /// Serves `router` on `connection`.
    #[must_use]
    pub fn new(router: Router, connection: Arc<ConnectionState>) -> Self {
        Self { router, connection }
    }
}

impl Service<Request<Incoming>> for Inspected {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let (arrived, in_flight) = self.connection.begin();
        let mut router = self.router.clone();
        Box::pin(async move {
            // Admin answers are short: the exchange counts as in flight until the answer is made.
            let _in_flight = in_flight;
            match arrived.outcome {
                Ok(_) => router.call(request.map(Body::new)).await,
                Err(rejection) => {
                    let mut response = denied(rejection.reason, &rejection.detail);
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    Ok(response)
                }
            }
        })
    }
}
