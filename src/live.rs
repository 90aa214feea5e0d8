//! A value that is replaced whole while others read it.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// The current version of an immutable value. Readers take it once per request; publishing a new one
/// never waits for them, and nobody ever sees half of it.
#[derive(Debug)]
pub struct Live<T>(ArcSwap<T>);

impl<T> Live<T> {
    /// Starts with `value`.
    pub fn new(value: T) -> Self {
        Self(ArcSwap::from_pointee(value))
    }

    /// The current value, to keep across an `await`.
    pub fn get(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Replaces the value; requests that began before keep the one they read.
    pub fn publish(&self, value: T) {
        self.0.store(Arc::new(value));
    }
}
