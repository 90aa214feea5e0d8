//! The keys of a policy file (SPEC 4).

use std::sync::Arc;

use super::super::diagnostic::Diagnostics;
use super::super::yaml::{self, Entry, Kind, Node, Reader};
use super::{Cors, Credentials, PolicyFile, SourceText, Span, Spanned, Unmatched, path_item, values};
use crate::rbac::ServiceName;
use crate::request::PathRules;
use crate::request::target::{
    Case, DotSegments, DoubleSlash, EncodedReserved, EncodedSlash, MatrixParams, TrailingSlash,
};

/// The keys of a policy file.
pub(super) const KEYS: [&str; 13] = [
    "version",
    "service",
    "upstream",
    "hosts",
    "paths",
    "path",
    "cors",
    "credentials",
    "forward_authorization",
    "unmatched",
    "strip",
    "report_only",
    "rate_limit",
];

/// The keys of `cors:`.
pub(super) const CORS_KEYS: [&str; 6] = ["origins", "methods", "headers", "expose", "credentials", "max_age"];

/// The keys of `path:`.
pub(super) const PATH_RULE_KEYS: [&str; 7] =
    ["dot_segments", "double_slash", "matrix_params", "encoded_slash", "encoded_reserved", "case", "trailing_slash"];

/// What a file without any of them looks like, for help.
const SMALLEST: &str = "A policy file begins with `version: 1`, `service: NAME`, `upstream: NAME` and `paths:`.";

pub(super) fn read(source: &Arc<SourceText>, out: &mut Diagnostics) -> Option<PolicyFile> {
    let root = yaml::parse(source, out);
    let mut reader = Reader { source, out };
    let (root, entries) = reader.file(root.as_ref(), "a policy file", SMALLEST)?;
    fields(&mut reader, root, entries)
}

fn fields(reader: &mut Reader<'_>, root: &Node, entries: &[Entry]) -> Option<PolicyFile> {
    // Something to go on with when `service` is missing or wrong; the finding keeps the file out of use.
    let unnamed = Spanned { value: ServiceName::parse("unnamed").ok()?, span: Span::default() };
    let mut file = PolicyFile {
        source: Arc::clone(reader.source),
        service: unnamed,
        upstream: None,
        hosts: Vec::new(),
        paths: Vec::new(),
        path_rules: None,
        forward_authorization: false,
        unmatched: Unmatched::default(),
        strip: Vec::new(),
        report_only: None,
        rate_limit: None,
        cors: None,
        credentials: None,
    };
    for entry in entries {
        let (node, span) = (&entry.value, entry.value.span);
        match entry.key.value.as_str() {
            "version" => version(reader, node),
            "service" => {
                if let Some(service) = service(reader, node) {
                    file.service = service;
                }
            }
            "upstream" => file.upstream = values::upstream(reader, node),
            "hosts" => file.hosts = hosts(reader, node),
            "paths" => file.paths = path_item::paths(reader, node),
            "path" => file.path_rules = path_rules(reader, node).map(|value| Spanned { value, span }),
            "cors" => file.cors = cors(reader, node).map(|value| Spanned { value, span }),
            "credentials" => file.credentials = credentials(reader, node).map(|value| Spanned { value, span }),
            "forward_authorization" => {
                file.forward_authorization =
                    reader.flag(node, "the value of `forward_authorization`").unwrap_or_default();
            }
            "unmatched" => file.unmatched = unmatched(reader, node).unwrap_or_default(),
            "strip" => file.strip = strip(reader, node),
            "report_only" => file.report_only = values::report_only(reader, node),
            "rate_limit" => file.rate_limit = values::rate_limit(reader, node),
            key if key.starts_with('/') => reader.error(
                entry.key.span,
                "path-outside-paths",
                format!("the path `{key}` stands beside `paths:` and not below it"),
                "Indent it by two spaces, below `paths:`.",
            ),
            _ => reader.unknown_key(entry, "a policy file", &KEYS),
        }
    }
    let start = Span { start: root.span.start, end: root.span.start };
    // A key that was misspelt is there, in a way, and has its own finding.
    let meant = |entry: &Entry, key: &str| {
        let written = entry.key.value.as_str();
        written == key || (!KEYS.contains(&written) && yaml::nearest(written, &KEYS) == Some(key))
    };
    let missing = |key: &str| !entries.iter().any(|entry| meant(entry, key));
    if missing("version") {
        reader.error(start, "missing-key", "the key `version` is missing", "Begin the file with `version: 1`.");
    }
    if missing("service") {
        let help = "Add `service: NAME`, the name of the application that this file protects, such as `oms`.";
        reader.error(start, "missing-key", "the key `service` is missing", help);
    }
    if missing("paths") {
        let help = "Add `paths:` and below it each path with its methods; what is not listed is denied.";
        reader.error(start, "missing-key", "the key `paths` is missing", help);
    }
    Some(file)
}

/// `version: 1`; shared with the roles file.
pub(in crate::policy) fn version(reader: &mut Reader<'_>, node: &Node) {
    if let Some(text) = reader.text(node, "the value of `version`", "`version: 1`")
        && text != "1"
    {
        let message = format!("version `{text}` is not known to this doorward");
        reader.error(node.span, "unknown-version", message, "Write `version: 1`; it is the only one so far.");
    }
}

fn service(reader: &mut Reader<'_>, node: &Node) -> Option<Spanned<ServiceName>> {
    let text = reader.text(node, "the value of `service`", "a name, such as `service: oms`")?;
    match ServiceName::parse(text) {
        Ok(value) => Some(Spanned { value, span: node.span }),
        Err(bad) => {
            let help = "Use only letters, digits, `-` and `_`.";
            reader.error(node.span, "bad-word", bad.to_string(), help);
            None
        }
    }
}

fn hosts(reader: &mut Reader<'_>, node: &Node) -> Vec<Spanned<super::HostPattern>> {
    let example = "a list, such as `hosts: [oms.example.com]`";
    let Some(items) = reader.list(node, "the value of `hosts`", example) else { return Vec::new() };
    if items.is_empty() {
        reader.error(node.span, "empty-list", "`hosts` names no host", "Name one, or remove the key for any host.");
    }
    let mut hosts: Vec<Spanned<_>> = Vec::new();
    for item in items {
        let Some(host) = values::host(reader, item) else { continue };
        if hosts.iter().any(|earlier| earlier.value == host) {
            reader.error(item.span, "duplicate-host", "this host is named twice", "Remove one of them.");
        } else {
            hosts.push(Spanned { value: host, span: item.span });
        }
    }
    hosts
}

fn path_rules(reader: &mut Reader<'_>, node: &Node) -> Option<PathRules> {
    let example = "for example `path: {double_slash: merge}`; the routes themselves stand below `paths:`";
    let entries = reader.map(node, "the value of `path`", example)?;
    let mut rules = PathRules::default();
    for entry in entries {
        let key = entry.key.value.as_str();
        macro_rules! loosen {
            ($field:ident, $kind:ident, $loose:ident) => {{
                if loosened(reader, entry, $kind::WORD) {
                    rules.$field = $kind::$loose;
                }
            }};
        }
        match key {
            "dot_segments" => loosen!(dot_segments, DotSegments, Resolve),
            "double_slash" => loosen!(double_slash, DoubleSlash, Merge),
            "matrix_params" => loosen!(matrix_params, MatrixParams, Keep),
            "encoded_slash" => loosen!(encoded_slash, EncodedSlash, Keep),
            "encoded_reserved" => loosen!(encoded_reserved, EncodedReserved, Keep),
            "case" => loosen!(case, Case, Insensitive),
            "trailing_slash" => loosen!(trailing_slash, TrailingSlash, Same),
            _ if key.starts_with('/') => reader.error(
                entry.key.span,
                "path-outside-paths",
                format!("the path `{key}` stands below `path:`, which only loosens how targets are read"),
                "Write `paths:` for the routes.",
            ),
            _ => reader.unknown_key(entry, "`path`", &PATH_RULE_KEYS),
        }
    }
    Some(rules)
}

fn loosened(reader: &mut Reader<'_>, entry: &Entry, word: &str) -> bool {
    let key = &entry.key.value;
    let what = format!("the value of `{key}`");
    match reader.text(&entry.value, &what, &format!("`{key}: {word}`")) {
        Some(text) if text == word => true,
        Some(text) => {
            let message = format!("`{key}` can only be loosened to `{word}`, not `{text}`");
            let help = format!("Write `{key}: {word}`, or remove the key: without it targets are read strictly.");
            reader.error(entry.value.span, "bad-word", message, help);
            false
        }
        None => false,
    }
}

fn unmatched(reader: &mut Reader<'_>, node: &Node) -> Option<Unmatched> {
    match reader.text(node, "the value of `unmatched`", "`403` or `404`")? {
        "403" => Some(Unmatched::Forbidden),
        "404" => Some(Unmatched::NotFound),
        other => {
            let message = format!("`unmatched` is the status for a path that is not listed: 403 or 404, not `{other}`");
            let help = "Write `unmatched: 404`, or remove the key for 403; such a request is denied in any case.";
            reader.error(node.span, "bad-word", message, help);
            None
        }
    }
}

fn strip(reader: &mut Reader<'_>, node: &Node) -> Vec<Spanned<String>> {
    /// Without these a request cannot be framed or routed.
    const NEEDED: [&str; 7] = ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"];
    let example = "a list, such as `strip: [X-Legacy-User]`";
    let Some(items) = reader.list(node, "the value of `strip`", example) else { return Vec::new() };
    let mut names = Vec::new();
    for item in items {
        let Some(name) = values::header(reader, item) else { continue };
        if NEEDED.contains(&name.as_str()) {
            let message = format!("`{name}` carries the request itself and cannot be stripped");
            reader.error(item.span, "bad-word", message, "Remove it from the list.");
        } else {
            names.push(Spanned { value: name, span: item.span });
        }
    }
    names
}

fn cors(reader: &mut Reader<'_>, node: &Node) -> Option<Cors> {
    let entries =
        reader.map(node, "the value of `cors`", "for example `cors: {origins: [\"https://app.example.com\"]}`")?;
    let mut cors = Cors::default();
    let mut stars: Vec<(Span, String)> = Vec::new();
    for entry in entries {
        let (key, node) = (entry.key.value.as_str(), &entry.value);
        match key {
            "origins" | "methods" | "headers" | "expose" => {
                let example = if key == "origins" { "[\"https://app.example.com\"]" } else { "[…]" };
                let example = format!("a list, such as `{key}: {example}`");
                let Some(items) = reader.list(node, &format!("the value of `{key}`"), &example) else { continue };
                let mut read = Vec::new();
                for item in items {
                    if matches!(&item.kind, Kind::Scalar { text, .. } if text == "*") {
                        stars.push((item.span, key.to_owned()));
                        read.push("*".to_owned());
                        continue;
                    }
                    read.extend(match key {
                        "origins" => values::origin(reader, item),
                        "methods" => values::method_name(reader, item),
                        _ => values::header(reader, item),
                    });
                }
                match key {
                    "origins" => cors.origins = read,
                    "methods" => cors.methods = read,
                    "headers" => cors.headers = read,
                    _ => cors.expose = read,
                }
            }
            "credentials" => {
                cors.credentials = reader.flag(node, "the value of `credentials`").unwrap_or_default();
            }
            "max_age" => cors.max_age = values::duration(reader, node, "max_age"),
            _ => reader.unknown_key(entry, "`cors`", &CORS_KEYS),
        }
    }
    match entries.iter().find(|entry| entry.key.value == "origins") {
        None => reader.error(
            node.span,
            "missing-key",
            "`cors` names no `origins`",
            "Add the origins that may call, such as `origins: [\"https://app.example.com\"]`.",
        ),
        Some(entry) if matches!(&entry.value.kind, Kind::List(items) if items.is_empty()) => {
            reader.error(entry.value.span, "empty-list", "`origins` names no origin", "Name one, or remove `cors`.");
        }
        Some(_) => {}
    }
    if cors.credentials {
        for (span, key) in stars {
            let message = format!("`{key}: [\"*\"]` and `credentials: true` would let any site act for the user");
            reader.error(span, "cors-credentials", message, "Name each one, or set `credentials: false`.");
        }
    }
    Some(cors)
}

fn credentials(reader: &mut Reader<'_>, node: &Node) -> Option<Credentials> {
    let example = "for example `credentials: {cookie: __Host-session}`";
    let entries = reader.map(node, "the value of `credentials`", example)?;
    let mut cookie = None;
    for entry in entries {
        if entry.key.value != "cookie" {
            reader.unknown_key(entry, "`credentials`", &["cookie"]);
            continue;
        }
        let name = reader.text(&entry.value, "the value of `cookie`", "the cookie's name, such as `__Host-session`")?;
        let rest = name.strip_prefix("__Host-").unwrap_or_default();
        if rest.is_empty() || !rest.bytes().all(values::is_token) {
            let message = format!("`{name}` is no `__Host-` cookie, and others can be planted by a neighbouring host");
            let help = "Name the cookie `__Host-` and letters, digits or `-`, such as `__Host-session`.";
            reader.error(entry.value.span, "cookie-name", message, help);
        } else {
            cookie = Some(name.to_owned());
        }
    }
    if entries.iter().all(|entry| entry.key.value != "cookie") {
        reader.error(node.span, "missing-key", "`credentials` names no cookie", format!("Write {example}."));
    }
    cookie.map(|cookie| Credentials { cookie })
}
