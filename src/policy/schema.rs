//! The JSON Schema of a policy file, for editors.
//!
//! It says what an editor can check while somebody types: keys, shapes, words. What needs more than one value
//! (ties between paths, unknown permissions, dates of the calendar) is left to `policy check`.

use serde_json::{Value, json};

use super::source::REQUIREMENT_WORDS;

/// The schema as a JSON document.
#[must_use]
pub fn policy_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:doorward:schema:policy:v1",
        "title": "doorward policy file",
        "description": "Which request to one service needs which permission. Order never matters; what is not listed is denied.",
        "type": "object",
        "required": ["version", "service", "paths"],
        "additionalProperties": false,
        "properties": {
            "version": { "const": 1, "description": "The version of this format." },
            "service": {
                "$ref": "#/$defs/name",
                "description": "The application that this file protects: the scope in which roles and tiers count."
            },
            "upstream": { "$ref": "#/$defs/upstream" },
            "hosts": {
                "description": "The hosts that this file serves, without port: names, or `*.example.com` for any name below. Any host if absent.",
                "type": "array", "minItems": 1, "uniqueItems": true,
                "items": { "type": "string", "pattern": "^(\\*\\.)?[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)*\\.?$|^\\[[0-9A-Fa-f:.]+\\]$" }
            },
            "paths": {
                "description": "Paths as in OpenAPI: literals, `{name}`, `{n:int}`, `{id:uuid}`, `{id}.json`, and `{rest...}` at the end.",
                "type": "object", "minProperties": 1, "propertyNames": { "pattern": "^/" },
                "additionalProperties": { "$ref": "#/$defs/path" }
            },
            "path": path_rules(),
            "cors": cors(),
            "credentials": {
                "description": "Takes the token from a cookie where there is no Authorization header.",
                "type": "object", "required": ["cookie"], "additionalProperties": false,
                "properties": {
                    "cookie": { "type": "string", "pattern": "^__Host-[!#$%&'*+.^_`|~0-9A-Za-z-]+$", "description": "The cookie's name; only `__Host-` cookies are safe here." }
                }
            },
            "forward_authorization": { "type": "boolean", "default": false, "description": "Whether the service sees the client's `Authorization` header." },
            "unmatched": { "enum": [403, 404], "default": 403, "description": "The status of a request to a path that is not listed." },
            "strip": {
                "description": "Further headers that are never taken from a client.",
                "type": "array", "items": { "$ref": "#/$defs/header" }
            },
            "report_only": { "$ref": "#/$defs/report_only" },
            "rate_limit": { "$ref": "#/$defs/rate_limit" }
        },
        "$defs": definitions()
    })
}

fn definitions() -> Value {
    json!({
        "name": { "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" },
        "header": { "type": "string", "pattern": "^[!#$%&'+.^_`|~0-9A-Za-z-]+$" },
        "upstream": { "type": "string", "pattern": "^[^/\\s]+$", "description": "A name under [upstreams] in doorward.toml." },
        "time": { "type": "string", "pattern": "^[0-9]*[1-9][0-9]*\\s*(ms|s|m|h)$" },
        "report_only": {
            "description": "Until 00:00 UTC of this day denials are logged and counted, and let through.",
            "type": "object", "required": ["until"], "additionalProperties": false,
            "properties": { "until": { "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$", "description": "The day from which it is enforced." } }
        },
        "rate_limit": {
            "description": "`30/min per subject`: how many in a second, minute or hour; anonymous requests count by address.",
            "type": "string", "pattern": "^[0-9]*[1-9][0-9]*\\s*/\\s*(s|min|h)\\s+per\\s+(subject|address)$"
        },
        "path": {
            "description": "The methods of a path. A method that is not named is answered 405, unless there is `\"*\"`.",
            "type": "object", "minProperties": 1,
            "properties": { "report_only": { "$ref": "#/$defs/report_only" } },
            "propertyNames": { "pattern": "^[!#$%&'*+.^_`|~0-9a-z-]+$", "not": { "enum": ["any", "all", "trace", "connect"] } },
            "additionalProperties": { "$ref": "#/$defs/method" }
        },
        "method": { "anyOf": [{ "$ref": "#/$defs/requirement" }, { "$ref": "#/$defs/long_form" }] },
        "long_form": {
            "type": "object", "required": ["require"], "additionalProperties": false,
            "properties": {
                "require": { "$ref": "#/$defs/requirement" },
                "timeout": { "$ref": "#/$defs/time", "description": "Until the first byte of the response, such as `120s`." },
                "rate_limit": { "$ref": "#/$defs/rate_limit" },
                "audit": { "type": "boolean", "default": false, "description": "Whether every request is audited, not only denials." },
                "body": { "type": "string", "pattern": "^([0-9]+\\s*(B|KiB|MiB|GiB|TiB)|unlimited)$", "description": "The largest request body, such as `1GiB`, or `unlimited`." },
                "outlives_token": { "type": "boolean", "description": "Whether a stream goes on when its token expires. Revocation ends it in any case." },
                "cache": { "const": "shared", "description": "Answers are the same for everybody and may be cached for all." },
                "report_only": { "$ref": "#/$defs/report_only" },
                "upstream": { "$ref": "#/$defs/upstream" }
            }
        },
        "requirement": {
            "description": "Who may. `public`: everybody; `authenticated`: any valid token; `deny`: nobody; else a permission or a mapping.",
            "anyOf": [{ "enum": REQUIREMENT_WORDS }, { "$ref": "#/$defs/part" }]
        },
        "part": {
            "anyOf": [
                { "const": "authenticated" },
                { "$ref": "#/$defs/permission" },
                one_key("any", "One of them will do.", &several()),
                one_key("all", "Every one is needed.", &several()),
                one_key("role", "The role, or one that inherits from it.", &json!({ "type": "string", "pattern": "^ROLE_[A-Z0-9_]{1,60}$" })),
                one_key("membership", "At least this tier, such as `oms >= PREMIUM`.", &json!({
                    "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}\\s*>=\\s*[A-Za-z0-9_-]{1,64}$"
                })),
                one_key("owner", "The path parameter that equals the caller's id.", &json!({ "type": "string", "pattern": "^[^{}:]+$" })),
                one_key("client", "The networks in which the client's address lies.", &json!({
                    "type": "array", "minItems": 1, "items": { "type": "string", "pattern": "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$" }
                }))
            ]
        },
        "permission": {
            "description": "A permission code: `resource:action` or `resource:sub-resource:action`.",
            "type": "string", "maxLength": 200, "pattern": "^[a-z0-9_-]+(:[a-z0-9_-]+){1,2}$"
        }
    })
}

fn several() -> Value {
    json!({ "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/part" } })
}

fn one_key(key: &str, description: &str, value: &Value) -> Value {
    json!({
        "type": "object", "required": [key], "additionalProperties": false,
        "properties": { key: value }, "description": description
    })
}

fn path_rules() -> Value {
    let loosening = |word: &str, description: &str| json!({ "const": word, "description": description });
    json!({
        "description": "Loosens how targets are read, for what the service needs. Without a key targets are read strictly.",
        "type": "object", "additionalProperties": false,
        "properties": {
            "dot_segments": loosening("resolve", "Resolve `.` and `..` (RFC 3986 section 5.2.4) instead of refusing them."),
            "double_slash": loosening("merge", "Merge repeated slashes instead of refusing them."),
            "matrix_params": loosening("keep", "Match without `;name=value` and forward with it."),
            "encoded_slash": loosening("keep", "Let `%2F` stand inside its segment."),
            "encoded_reserved": loosening("keep", "Let other encoded delimiters stand inside their segment."),
            "case": loosening("insensitive", "Compare literals without regard to letter case, as the service does."),
            "trailing_slash": loosening("same", "Treat `/x` and `/x/` as one path, as the service does.")
        }
    })
}

fn cors() -> Value {
    json!({
        "description": "Answers preflights and adds the CORS headers, to denials too. Without it OPTIONS is a method like any other.",
        "type": "object", "required": ["origins"], "additionalProperties": false,
        "properties": {
            "origins": {
                "description": "Who may call, such as `https://app.example.com`, or `*` without credentials.",
                "type": "array", "minItems": 1, "items": { "type": "string", "pattern": "^(\\*|[A-Za-z0-9+.-]+://[^/]+)$" }
            },
            "methods": { "type": "array", "items": { "type": "string" }, "description": "Methods that may be used, where the path has them; all that it has if absent." },
            "headers": { "type": "array", "items": { "type": "string" }, "description": "Request headers that may be sent; Authorization and Content-Type if absent." },
            "expose": { "type": "array", "items": { "type": "string" }, "description": "Response headers that a script may read, beside doorward's own." },
            "credentials": { "type": "boolean", "default": false, "description": "Whether the browser sends cookies along, and these origins may act with them." },
            "max_age": { "$ref": "#/$defs/time", "description": "How long a browser may remember a preflight, such as `10m`." }
        },
        "if": { "properties": { "credentials": { "const": true } }, "required": ["credentials"] },
        "then": { "properties": {
            "origins": { "items": { "not": { "const": "*" } } },
            "methods": { "items": { "not": { "const": "*" } } },
            "headers": { "items": { "not": { "const": "*" } } },
            "expose": { "items": { "not": { "const": "*" } } }
        } }
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::super::diagnostic::Diagnostics;
    use super::super::source::tests::EXAMPLE;
    use super::super::source::{PolicyFile, SourceText};
    use super::super::yaml;
    use super::*;

    fn json(text: &str) -> Option<Value> {
        let source = Arc::new(SourceText { name: "p.yaml".into(), text: text.into() });
        let mut out = Diagnostics::default();
        let node = yaml::parse(&source, &mut out)?;
        (!out.has_errors()).then(|| node.to_json())
    }

    #[test]
    fn the_example_is_valid_and_the_schema_is_one() {
        let schema = policy_schema();
        assert!(jsonschema::meta::is_valid(&schema));
        let validator = jsonschema::validator_for(&schema).unwrap();
        let errors: Vec<_> = validator.iter_errors(&json(EXAMPLE).unwrap()).map(|error| error.to_string()).collect();
        assert_eq!(errors, [""; 0]);
    }

    #[test]
    fn broken_files_are_not_valid() {
        let validator = jsonschema::validator_for(&policy_schema()).unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy/broken");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if !name.starts_with("policy-") || !name.ends_with(".yaml") {
                continue;
            }
            let Some(json) = json(&std::fs::read_to_string(&path).unwrap()) else { continue };
            assert!(!validator.is_valid(&json), "{name} is valid to the schema");
            count += 1;
        }
        assert!(count > 20, "{count}");
    }

    /// What one of the two refuses and the other takes is a trap for whoever trusts the editor.
    #[test]
    fn schema_and_reader_agree() {
        let validator = jsonschema::validator_for(&policy_schema()).unwrap();
        let entries = [
            "{/x: {get: public}}",
            "{/x: {get: authenticated, \"*\": deny}}",
            "{/x: {get: {any: [a:b, authenticated]}}}",
            "{/x: {get: {any: [a:b, public]}}}",
            "{/x: {get: {require: {role: ROLE_A}, timeout: 5s, body: 1MiB, audit: true, cache: shared}}}",
            "{/x: {get: {require: a:b, body: 0B}}}",
            "{/x: {get: {require: a:b, timeout: 0s}}}",
            "{/x: {get: {require: a:b, timeout: 5}}}",
            "{/x: {get: {require: a:b, rate_limit: 5/s per address}}}",
            "{/x: {get: {require: a:b, rate_limit: 0/s per address}}}",
            "{/x: {get: {client: [10.0.0.0/8, \"::1\"]}}}",
            "{/x: {get: {membership: oms>=FREE}}}",
            "{/x: {get: {membership: oms}}}",
            "{/x: {get: {owner: id}}}",
            "{/x: {get: {owner: \"{id}\"}}}",
            "{/x: {get: {all: []}}}",
            "{/x: {GET: a:b}}",
            "{/x: {trace: a:b}}",
            "{/x: {propfind: a:b, report_only: {until: 2027-01-31}}}",
            "{/x: {}}",
            "{x: {get: a:b}}",
            "{}",
        ];
        for entry in entries {
            let text = format!("version: 1\nservice: s\npaths: {entry}\n");
            let source = Arc::new(SourceText { name: "p.yaml".into(), text: text.clone() });
            let (_, out) = PolicyFile::parse(source);
            assert_eq!(validator.is_valid(&json(&text).unwrap()), !out.has_errors(), "{entry}\n{}", out.render(false));
        }
    }
}
