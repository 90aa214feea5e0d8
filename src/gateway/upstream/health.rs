//! What is done beside requests to know whether an endpoint is well.

use std::sync::Arc;
use std::time::Instant;

use http::header::{ACCEPT, HOST, USER_AGENT};
use http::uri::Scheme as UriScheme;
use http::{HeaderValue, Request};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::super::body::RequestBody;
use super::connect::{Made, Wanted, connect};
use super::endpoint::{Due, EndpointState};
use super::http2;
use super::registry::Upstream;
use super::settings::HealthSettings;

/// How much of a check's answer is read, so that the endpoint does not see a connection that breaks.
const ANSWER_BYTES: usize = 64 * 1024;

/// One endpoint that is to be looked at now. Dropped without being run, it is looked at again.
#[derive(Debug)]
pub struct Check {
    upstream: Arc<Upstream>,
    state: Arc<EndpointState>,
    due: Due,
}

impl Check {
    pub(super) fn all_due(upstream: &Arc<Upstream>, now: Instant) -> impl Iterator<Item = Self> {
        upstream.endpoints.iter().filter_map(move |state| {
            let due = state.due(now, upstream.settings.health.as_ref())?;
            Some(Self { upstream: Arc::clone(upstream), state: Arc::clone(state), due })
        })
    }

    /// Looks, and tells what was seen.
    pub async fn run(self) {
        let settings = &self.upstream.settings;
        match (self.due, &settings.health) {
            (Due::Health, Some(health)) => {
                let seen = timeout(health.timeout, ask(&self.state, &self.upstream, health)).await;
                let good = match seen {
                    Ok(Ok(())) => true,
                    Ok(Err(fault)) => {
                        tracing::debug!(endpoint = %self.state.endpoint, fault, "a health check failed");
                        false
                    }
                    Err(_) => false,
                };
                self.state.checked(good, health);
            }
            _ => {
                let made = connect(&self.state, Wanted::Any, settings.connect).await;
                self.state.probed(made.is_ok(), &settings.ejection);
            }
        }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.state.done();
    }
}

/// Asks for the path of the check on a connection of its own. The fault is for logs.
async fn ask(state: &EndpointState, upstream: &Upstream, health: &HealthSettings) -> Result<(), String> {
    let settings = &upstream.settings;
    let made = connect(state, Wanted::Any, settings.connect.min(health.timeout)).await.map_err(|error| error.detail)?;
    let mut request = Request::get(&*health.path)
        .header(HOST, settings.authority.clone())
        .header(USER_AGENT, HeaderValue::from_static("doorward-health"))
        .header(ACCEPT, HeaderValue::from_static("*/*"))
        .body(RequestBody::empty())
        .map_err(|error| error.to_string())?;
    let sent = match made {
        Made::Http1(mut sender, _) => sender.send_request(request).await,
        Made::Http2(mut connection) => {
            let scheme = if state.tls.is_some() { UriScheme::HTTPS } else { UriScheme::HTTP };
            http2::into_http2(&mut request, scheme).ok_or("its authority is none")?;
            connection.sender.send_request(request).await
        }
    };
    let mut answer = sent.map_err(|error| error.to_string())?;
    if !answer.status().is_success() {
        return Err(format!("it answered {}", answer.status()));
    }
    let mut left = ANSWER_BYTES;
    while let Some(frame) = answer.body_mut().frame().await {
        let length = frame.map_err(|error| error.to_string())?.data_ref().map_or(0, bytes::Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => break,
        }
    }
    Ok(())
}
