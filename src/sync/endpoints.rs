//! Looking after the endpoints of upstreams: ejected ones are tried, and all of them are checked where that is configured.

use std::time::{Duration, Instant};

/// How often is asked whether something is due.
const PERIOD: Duration = Duration::from_millis(200);

/// Starts what `due` names, until the task is dropped. Each runs by itself: an endpoint that does not answer holds up no other.
pub async fn look_after<F: Future<Output = ()> + Send + 'static>(due: impl Fn(Instant) -> Vec<F>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for check in due(Instant::now()) {
            tokio::spawn(check);
        }
    }
}
