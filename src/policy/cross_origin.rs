//! Whose `cors:` counts for a request, and what it lets a page of another origin ask for (SPEC 4; the Fetch standard's CORS
//! protocol). What is made of it in headers is the gateway's.
//!
//! A path follows the block of its own file. Where no path matches, the host's block counts if its files have one only, or
//! equal ones; else nobody's.

use std::sync::Arc;

use super::decide::{Decision, Outcome};
use super::snapshot::{Formula, Shape, Snapshot};
use super::source::Cors;
use crate::reason::Reason;
use crate::request::target::clean;
use crate::request::{Host, RequestFacts};

/// Where a preflight was going.
#[derive(Debug)]
pub struct Preflight<'s> {
    /// Index of the service whose block answers.
    pub service: u32,
    /// The block.
    pub cors: &'s Arc<Cors>,
    /// The methods that the page may use there, as `Access-Control-Allow-Methods` lists them.
    pub methods: String,
}

impl Snapshot {
    /// Whether a preflight for `wanted` (`Access-Control-Request-Method`) to the path of `facts` is answered here, and with
    /// what. `None` where no `cors:` counts, or the target is refused: then `OPTIONS` is a method like any other.
    #[must_use]
    pub fn preflight(&self, facts: &RequestFacts<'_>, wanted: &str) -> Option<Preflight<'_>> {
        let table = self.hosts.table(facts.host)?;
        if self.services.iter().all(|service| service.cors.is_none()) {
            return None;
        }
        let target = clean(facts.target, &table.rules).ok()?;
        let found = table.index.find(target.match_path());
        let shape = found.and_then(|shape| table.shape(table.index.value(shape)));
        let service = match shape {
            Some(shape) => shape.service,
            None => table.cors?,
        };
        let cors = self.services.get(service as usize)?.cors.as_ref()?;
        Some(Preflight { service, cors, methods: self.methods_for(shape, &cors.methods, wanted) })
    }

    /// The methods that a page may use: those of the block, if it names some, which the path has too. Where there is no
    /// path, the method that was asked for will do: the denial is worth reading.
    fn methods_for(&self, shape: Option<&Shape>, listed: &[String], wanted: &str) -> String {
        let every = listed.is_empty() || listed.iter().any(|method| method == "*");
        match shape {
            None if every => wanted.to_owned(),
            None => listed.join(", "),
            Some(shape) if every => {
                let mut methods = String::from(self.allow(shape));
                // A method that nobody knows is let through by `"*"` alone.
                if self.takes(shape, wanted) && !methods.split(", ").any(|method| method == wanted) {
                    methods = if methods.is_empty() { wanted.to_owned() } else { format!("{methods}, {wanted}") };
                }
                methods
            }
            Some(shape) => {
                let taken: Vec<&str> = listed.iter().map(String::as_str).filter(|m| self.takes(shape, m)).collect();
                taken.join(", ")
            }
        }
    }

    /// Whether the path has the method, and not closed.
    fn takes(&self, shape: &Shape, method: &str) -> bool {
        let route = match method {
            "TRACE" | "CONNECT" => None,
            method => shape.route(self.methods.key(method)),
        };
        let guard = route.and_then(|route| self.guards.get(route.0 as usize));
        guard.is_some_and(|guard| guard.formula != Formula::Deny)
    }

    /// The block that counts for what was decided upon.
    #[must_use]
    #[inline]
    pub fn cors_of(&self, decision: &Decision<'_>, host: Option<&Host>) -> Option<&Arc<Cors>> {
        let matched = decision.route.is_some() || {
            let reason = match decision.outcome {
                Outcome::Deny(reason) => Some(reason),
                Outcome::Allow => decision.would_deny,
            };
            reason == Some(Reason::MethodNotAllowed)
        };
        let service = if matched { decision.service } else { self.hosts.table(host).and_then(|table| table.cors) };
        self.services.get(service? as usize)?.cors.as_ref()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use crate::policy::testing::{CLIENT, ask, snapshot_of};

    const OMS: &str = "\
version: 1
service: oms
upstream: oms
cors: { origins: [\"https://a.test\"] }
paths:
  /orders: { get: order:view, post: order:edit, delete: deny }
  /any: { '*': order:view, put: deny }
  /closed/{rest...}: { '*': deny }
";

    fn methods(snapshot: &Snapshot, request: &str) -> Option<String> {
        let (wanted, target) = request.split_once(' ').unwrap();
        let facts = RequestFacts { method: "OPTIONS", host: None, target, client: CLIENT };
        snapshot.preflight(&facts, wanted).map(|preflight| preflight.methods)
    }

    #[test]
    fn a_method_that_the_path_lacks_is_not_allowed() {
        let snapshot = snapshot_of(&[OMS], false);
        for (request, allowed) in [
            ("PUT /orders", Some("GET, HEAD, POST")),
            ("DELETE /orders", Some("GET, HEAD, POST")),
            ("PATCH /any", Some("DELETE, GET, HEAD, OPTIONS, PATCH, POST")),
            ("PURGE /any", Some("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PURGE")),
            ("TRACE /any", Some("DELETE, GET, HEAD, OPTIONS, PATCH, POST")),
            ("PUT /any", Some("DELETE, GET, HEAD, OPTIONS, PATCH, POST")),
            ("GET /closed/x", Some("")),
            ("PUT /nowhere", Some("PUT")),
            ("PUT /orders/../x", None),
        ] {
            assert_eq!(methods(&snapshot, request).as_deref(), allowed, "{request}");
        }
        let listed = OMS.replace("origins:", "methods: [get, put, DELETE], origins:");
        let snapshot = snapshot_of(&[&listed], false);
        assert_eq!(methods(&snapshot, "PUT /orders").as_deref(), Some("GET"));
        assert_eq!(methods(&snapshot, "PUT /nowhere").as_deref(), Some("GET, PUT, DELETE"));
        let none = OMS.replace("cors:", "#");
        assert_eq!(methods(&snapshot_of(&[&none], false), "GET /orders"), None);
    }

    #[test]
    fn each_file_speaks_for_its_paths_and_a_host_for_the_rest() {
        let other =
            |cors: &str| format!("version: 1\nservice: blog\nupstream: oms\n{cors}\npaths:\n  /b: {{ get: public }}\n");
        let origins = |second: &str, request: &str| {
            let snapshot = snapshot_of(&[OMS, &other(second)], false);
            let (method, target) = request.split_once(' ').unwrap();
            let decision = ask(&snapshot, "-", method, target, None);
            snapshot.cors_of(&decision, None).map(|cors| cors.origins.join(" "))
        };
        let (same, different) = ("cors: { origins: [\"https://a.test\"] }", "cors: { origins: [\"https://b.test\"] }");
        for (second, request, expected) in [
            ("", "GET /orders", Some("https://a.test")),
            ("", "PUT /orders", Some("https://a.test")),
            ("", "GET /b", None),
            ("", "PUT /b", None),
            ("", "GET /nowhere", Some("https://a.test")),
            ("", "GET /a//b", Some("https://a.test")),
            (same, "GET /nowhere", Some("https://a.test")),
            (different, "GET /nowhere", None),
            (different, "GET /b", Some("https://b.test")),
            (different, "PUT /b", Some("https://b.test")),
        ] {
            assert_eq!(origins(second, request).as_deref(), expected, "{second} {request}");
        }
    }
}
