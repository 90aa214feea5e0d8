//! Paths and their methods (SPEC 4, 4.1).

use super::super::yaml::{Entry, Kind, Node, Reader, nearest};
use super::{BodyLimit, CachePolicy, MethodItem, PathItem, Requirement, Span, Spanned, requirement, values};

/// The keys of a method's long form.
pub(super) const METHOD_KEYS: [&str; 9] =
    ["require", "timeout", "rate_limit", "audit", "body", "outlives_token", "cache", "report_only", "upstream"];

/// Methods that need no second look (RFC 9110 section 9, RFC 5789, and those of WebDAV that are met in the wild).
const USUAL: [&str; 17] = [
    "get",
    "head",
    "post",
    "put",
    "patch",
    "delete",
    "options",
    "query",
    "propfind",
    "proppatch",
    "mkcol",
    "copy",
    "move",
    "lock",
    "unlock",
    "report",
    "search",
];

/// Keys of an OpenAPI path item or operation that are no method.
const OPENAPI: [&str; 11] = [
    "summary",
    "description",
    "parameters",
    "servers",
    "tags",
    "operationid",
    "responses",
    "requestbody",
    "security",
    "deprecated",
    "callbacks",
];

/// `paths:`
pub(super) fn paths(reader: &mut Reader<'_>, node: &Node) -> Vec<PathItem> {
    let example = "each path with its methods below it, such as `/health: {get: public}`";
    let Some(entries) = reader.map(node, "the value of `paths`", example) else { return Vec::new() };
    if entries.is_empty() {
        reader.error(
            node.span,
            "empty-list",
            "`paths` lists no path, so everything is denied",
            format!("Write {example}."),
        );
    }
    entries.iter().filter_map(|entry| path_item(reader, entry)).collect()
}

fn path_item(reader: &mut Reader<'_>, entry: &Entry) -> Option<PathItem> {
    let known = path_key(reader, &entry.key);
    let pattern = &entry.key.value;
    let Kind::Map(entries) = &entry.value.kind else {
        // The mend of a wrong key says already where the methods go.
        if !known || matches!(entry.value.kind, Kind::Refused) {
            return None;
        }
        let message = format!("`{pattern}` needs its methods");
        let help = match &entry.value.kind {
            Kind::Scalar { text, .. } if !entry.value.is_nothing() => {
                format!("Say for which method: `get: {text}`, or `\"*\": {text}` for any.")
            }
            Kind::List(_) => "Write each method as a key with what it requires, such as `get: order:view`.".to_owned(),
            _ => "Write them below it, indented by two spaces, such as `get: order:view`.".to_owned(),
        };
        reader.error(entry.value.span, "no-methods", message, help);
        return None;
    };
    if entries.is_empty() {
        let help = "Add one, such as `get: order:view`, or remove the path: what is not listed is denied.";
        reader.error(entry.value.span, "no-methods", format!("`{pattern}` has no method"), help);
    }
    let mut item = PathItem { pattern: entry.key.clone(), methods: Vec::new(), report_only: None };
    for entry in entries {
        if entry.key.value == "report_only" {
            item.report_only = values::report_only(reader, &entry.value);
        } else if let Some(method) = method_key(reader, &entry.key) {
            item.methods.extend(method_item(reader, method, &entry.value));
        }
    }
    known.then_some(item)
}

/// Whether a key of `paths` can be a path; its pattern is read when the file is compiled.
fn path_key(reader: &mut Reader<'_>, key: &Spanned<String>) -> bool {
    let text = key.value.as_str();
    if text.starts_with('/') {
        return true;
    }
    let first = text.split_whitespace().next().unwrap_or_default();
    let rest = text[first.len()..].trim();
    if rest.starts_with('/') && first.bytes().all(values::is_token) {
        let method = first.to_ascii_lowercase();
        reader.error(
            key.span,
            "method-in-path",
            format!("the method `{first}` stands in front of the path"),
            format!("Write the path as the key and the method below it: `{rest}: {{{method}: …}}`."),
        );
    } else if text.contains("://") {
        let help = "Write only the path, from its first slash; hosts stand under `hosts:`.";
        reader.error(key.span, "path-slash", format!("`{text}` is a whole address and not a path"), help);
    } else {
        let help = format!("Write `/{text}`.");
        reader.error(key.span, "path-slash", format!("the path `{text}` does not begin with a slash"), help);
    }
    false
}

/// The method that a key names: upper case, or `*`.
fn method_key(reader: &mut Reader<'_>, key: &Spanned<String>) -> Option<Spanned<String>> {
    let text = key.value.as_str();
    let lower = text.to_ascii_lowercase();
    if text == "*" {
        return Some(key.clone());
    }
    if METHOD_KEYS.contains(&text) {
        let message = format!("`{text}` stands directly below a path, but belongs to a method");
        let help = match text {
            "require" => "Write it below the method: `get: {require: …}`, or short `get: …`.".to_owned(),
            _ => format!("Write it below the method: `get: {{require: …, {text}: …}}`."),
        };
        reader.error(key.span, "key-outside-method", message, help);
        return None;
    }
    if OPENAPI.contains(&lower.as_str()) || lower.starts_with("x-") {
        let message = format!("`{text}` is known to OpenAPI, but not to a policy file");
        reader.error(
            key.span,
            "unknown-key",
            message,
            "Remove it; below a path stand methods, `\"*\"` and `report_only`.",
        );
        return None;
    }
    if text.contains([',', '|', ' ']) {
        let help = "Write each method as a key of its own.";
        reader.error(key.span, "many-methods", format!("`{text}` is more than one method"), help);
        return None;
    }
    if text.is_empty() || !text.bytes().all(values::is_token) {
        let help = "Below a path stand methods such as `get`, `\"*\"` for any other, and `report_only`.";
        reader.error(key.span, "bad-method", format!("`{text}` is no method"), help);
        return None;
    }
    if matches!(lower.as_str(), "any" | "all") {
        let help = "Write `\"*\"` (with the quotes) for any method that is not named.";
        reader.error(key.span, "bad-method", format!("`{text}` is no method"), help);
        return None;
    }
    if text != lower {
        let help = format!("Write `{lower}`.");
        reader.error(key.span, "method-case", format!("the method `{text}` is not written in lower case"), help);
        return None;
    }
    if matches!(lower.as_str(), "trace" | "connect") {
        let help = "Remove it; a WebSocket is opened by `get`.";
        reader.error(key.span, "bad-method", format!("`{text}` is never forwarded, it is always answered 405"), help);
        return None;
    }
    if !USUAL.contains(&lower.as_str()) {
        let mut near: Vec<&str> = USUAL.to_vec();
        near.push("report_only");
        if let Some(near) = nearest(&lower, &near) {
            let message = format!("`{text}` is an unusual method");
            let help = format!(
                "Did you mean `{near}`? As it stands, only requests with the method {} match.",
                text.to_ascii_uppercase()
            );
            reader.warning(key.span, "unusual-method", message, help);
        }
    }
    Some(Spanned { value: lower.to_ascii_uppercase(), span: key.span })
}

fn method_item(reader: &mut Reader<'_>, method: Spanned<String>, node: &Node) -> Option<MethodItem> {
    let plain = |require| MethodItem {
        method: method.clone(),
        require,
        timeout: None,
        rate_limit: None,
        audit: false,
        body: None,
        outlives_token: None,
        cache: None,
        report_only: None,
        upstream: None,
    };
    let entries = match &node.kind {
        Kind::Map(entries) if is_long_form(entries) => entries,
        _ => return requirement::read(reader, node).map(plain),
    };
    // Something to go on with when the requirement is missing or wrong, so that the other keys are read too.
    let mut require = None;
    let mut item = plain(Spanned { value: Requirement::Deny, span: Span::default() });
    for entry in entries {
        let (node, span) = (&entry.value, entry.value.span);
        match entry.key.value.as_str() {
            "require" => require = requirement::read(reader, node),
            "timeout" => item.timeout = values::duration(reader, node, "timeout"),
            "rate_limit" => item.rate_limit = values::rate_limit(reader, node),
            "audit" => item.audit = reader.flag(node, "the value of `audit`").unwrap_or_default(),
            "body" => item.body = body(reader, node),
            "outlives_token" => {
                let value = reader.flag(node, "the value of `outlives_token`");
                item.outlives_token = value.map(|value| Spanned { value, span });
            }
            "cache" => item.cache = cache(reader, node),
            "report_only" => item.report_only = values::report_only(reader, node),
            "upstream" => item.upstream = values::upstream(reader, node),
            key if requirement::KINDS.contains(&key) => reader.error(
                entry.key.span,
                "unknown-key",
                format!("`{key}` stands beside other keys of the method"),
                format!("Write it below `require`: `require: {{{key}: …}}`."),
            ),
            _ => reader.unknown_key(entry, "a method", &METHOD_KEYS),
        }
    }
    if entries.iter().all(|entry| entry.key.value != "require") {
        let help = "Add it, for example `require: order:view`, or `require: authenticated` for any valid token.";
        reader.error(method.span, "missing-key", "this method says nothing about what it requires", help);
    }
    item.require = require?;
    Some(item)
}

/// Whether a mapping is a method's long form rather than a requirement: a key of it, or one that nearly is.
fn is_long_form(entries: &[Entry]) -> bool {
    let known = |entry: &Entry| METHOD_KEYS.contains(&entry.key.value.as_str());
    let kind = |entry: &Entry| requirement::KINDS.contains(&entry.key.value.as_str());
    entries.iter().any(known)
        || (!entries.iter().any(kind) && entries.iter().any(|entry| nearest(&entry.key.value, &METHOD_KEYS).is_some()))
}

fn body(reader: &mut Reader<'_>, node: &Node) -> Option<BodyLimit> {
    let text = reader.text(node, "the value of `body`", "a size such as `1GiB`, or `unlimited`")?;
    if text == "unlimited" {
        return Some(BodyLimit::Unlimited);
    }
    values::size(reader, node, text).map(BodyLimit::Bytes)
}

fn cache(reader: &mut Reader<'_>, node: &Node) -> Option<CachePolicy> {
    match reader.text(node, "the value of `cache`", "`cache: shared`")? {
        "shared" => Some(CachePolicy::Shared),
        other => {
            let help = "Write `cache: shared` if answers are the same for everybody, or remove the key.";
            reader.error(node.span, "bad-word", format!("`cache` can only be `shared`, not `{other}`"), help);
            None
        }
    }
}
