//! What a method asks of its caller (SPEC 4.2).

use super::super::yaml::{Entry, Kind, Node, Reader, nearest};
use super::{Requirement, Spanned, values};
use crate::rbac::{PermissionCode, RoleKey, ServiceName, TierKey};

/// The keys of a requirement that is a mapping.
pub(super) const KINDS: [&str; 6] = ["any", "all", "role", "membership", "owner", "client"];

/// The words that are a requirement.
pub(in crate::policy) const WORDS: [&str; 3] = ["public", "authenticated", "deny"];

/// Whether a requirement stands in another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Alone,
    Nested,
}

/// Reads a requirement as it stands at a method.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<Spanned<Requirement>> {
    requirement(reader, node, Standing::Alone)
}

fn requirement(reader: &mut Reader<'_>, node: &Node, standing: Standing) -> Option<Spanned<Requirement>> {
    let value = match &node.kind {
        Kind::Scalar { text, .. } if !node.is_nothing() => word(reader, node, text, standing),
        Kind::Scalar { .. } => {
            let help = "Write a permission such as `order:view`, or `public`, `authenticated` or `deny`.";
            reader.error(
                node.span,
                "no-requirement",
                "nothing is required here, and nothing is ever allowed by silence",
                help,
            );
            None
        }
        Kind::Refused => None,
        Kind::List(_) => {
            let help = "Write `{all: […]}` if every one is needed, or `{any: […]}` if one of them will do.";
            reader.error(
                node.span,
                "bare-list",
                "a list alone does not say whether all or any of it is required",
                help,
            );
            None
        }
        Kind::Map(entries) => match entries.as_slice() {
            [entry] => kind(reader, entry),
            [] => {
                let help = format!("Write one of {}.", spelled(&KINDS));
                reader.error(node.span, "no-requirement", "an empty mapping requires nothing", help);
                None
            }
            [first, second, ..] => {
                let (one, other) = (&first.key.value, &second.key.value);
                let message = format!("a requirement has one key, and here are `{one}` and `{other}`");
                let help = format!("Join them: `{{all: [{{{one}: …}}, {{{other}: …}}]}}`, or with `any`.");
                reader.error(second.key.span, "many-keys", message, help);
                None
            }
        },
    };
    value.map(|value| Spanned { value, span: node.span })
}

fn word(reader: &mut Reader<'_>, node: &Node, text: &str, standing: Standing) -> Option<Requirement> {
    if standing == Standing::Nested && matches!(text, "public" | "deny") {
        let message = format!("`{text}` stands alone, and cannot be a part of `any` or `all`");
        let help = format!("Remove it here, or write `{text}` for the whole method.");
        reader.error(node.span, "stands-alone", message, help);
        return None;
    }
    match text {
        "public" => return Some(Requirement::Public),
        "authenticated" => return Some(Requirement::Authenticated),
        "deny" => return Some(Requirement::Deny),
        _ => {}
    }
    if let Ok(code) = PermissionCode::parse(text) {
        return Some(Requirement::Permission(code));
    }
    let (message, help) = mistaken_word(text);
    reader.error(node.span, "bad-requirement", message, help);
    None
}

/// What is wrong with a word that is no requirement, and what was probably meant.
fn mistaken_word(text: &str) -> (String, String) {
    let lower = text.to_ascii_lowercase();
    let message = format!("`{text}` is no requirement");
    if RoleKey::parse(&text.to_ascii_uppercase()).is_ok() {
        return (
            format!("`{text}` is a role, and a role must be asked for as one"),
            format!("Write `{{role: {}}}`.", text.to_ascii_uppercase()),
        );
    }
    if text.contains(['<', '>', '=']) {
        return (message, "For a membership write `{membership: SERVICE >= TIER}`.".to_owned());
    }
    if text.contains('*') {
        let message = format!("`{text}` has a wildcard, and a requirement names one permission");
        return (
            message,
            "Name the permission; wildcards are for what a role holds. For any valid token write `authenticated`."
                .to_owned(),
        );
    }
    if text.contains(" or ") || text.contains('|') {
        return (message, "For one of several write `{any: [a:view, b:view]}`.".to_owned());
    }
    if text.contains(" and ") || text.contains(['&', ',', '+']) {
        return (message, "For several at once write `{all: [a:view, b:view]}`.".to_owned());
    }
    let meant = match lower.as_str() {
        "yes" | "on" | "true" | "allow" | "anonymous" | "open" | "permit" | "permitall" | "none" => {
            Some("For everybody without a token write `public`, for any valid token `authenticated`.")
        }
        "no" | "off" | "false" | "forbidden" | "denied" | "denyall" | "never" | "closed" => {
            Some("To close it for everybody write `deny`.")
        }
        "user" | "login" | "logged_in" | "token" | "bearer" | "auth" => {
            Some("For any valid token write `authenticated`.")
        }
        _ => None,
    };
    if let Some(meant) = meant {
        return (message, meant.to_owned());
    }
    if let Some(near) = nearest(text, &WORDS) {
        return (message, format!("Did you mean `{near}`?"));
    }
    if PermissionCode::parse(&lower).is_ok() {
        return (format!("the permission `{text}` has upper-case letters"), format!("Write `{lower}`."));
    }
    let dotted = lower.replace(['.', '/'], ":");
    if PermissionCode::parse(&dotted).is_ok() {
        return (message, format!("A permission's parts are joined by `:`; did you mean `{dotted}`?"));
    }
    if text.contains(':') {
        let help = "A permission has two or three parts of lower-case letters, digits, `-` or `_`, such as `order:view` or `order:item:view`.";
        return (format!("`{text}` is no permission code"), help.to_owned());
    }
    (
        message,
        format!(
            "Write a permission such as `order:view`, one of {}, or a mapping with {}.",
            spelled(&WORDS),
            spelled(&KINDS)
        ),
    )
}

fn kind(reader: &mut Reader<'_>, entry: &Entry) -> Option<Requirement> {
    let (key, node) = (entry.key.value.as_str(), &entry.value);
    match key {
        "any" => several(reader, key, node).map(Requirement::Any),
        "all" => several(reader, key, node).map(Requirement::All),
        "role" => role(reader, node).map(Requirement::Role),
        "membership" => membership(reader, node),
        "owner" => owner(reader, node).map(Requirement::Owner),
        "client" => client(reader, node).map(Requirement::Client),
        "permission" | "permissions" => {
            let help = "Write the permission alone, such as `order:view`, or several in `{all: […]}`.";
            reader.error(entry.key.span, "unknown-key", format!("`{key}` is not a key of a requirement"), help);
            None
        }
        "not" | "none" | "except" => {
            let message = format!("`{key}` is not a key of a requirement: holding more never loses access");
            reader.error(entry.key.span, "unknown-key", message, "Say what is required instead.");
            None
        }
        _ => {
            // `get: {order:view}` is a mapping to YAML, with one key and nothing in it.
            if node.is_nothing() && (PermissionCode::parse(key).is_ok() || WORDS.contains(&key)) {
                let help = format!("Write `{key}` without the braces.");
                reader.error(entry.key.span, "bad-requirement", format!("`{key}` stands in braces"), help);
            } else {
                reader.unknown_key(entry, "a requirement", &KINDS);
            }
            None
        }
    }
}

fn several(reader: &mut Reader<'_>, key: &str, node: &Node) -> Option<Vec<Spanned<Requirement>>> {
    let items =
        reader.list(node, &format!("the value of `{key}`"), &format!("a list, such as `{key}: [a:view, b:view]`"))?;
    if items.is_empty() {
        let message = format!("`{key}` has no part");
        let help = "Name what is required, or write `authenticated` for any valid token.";
        reader.error(node.span, "empty-list", message, help);
        return None;
    }
    // All parts are read before any fault ends it, so that all faults are told.
    let parts: Vec<_> = items.iter().map(|item| requirement(reader, item, Standing::Nested)).collect();
    parts.into_iter().collect()
}

fn role(reader: &mut Reader<'_>, node: &Node) -> Option<RoleKey> {
    if matches!(node.kind, Kind::List(_)) {
        let help = "Write `{any: [{role: ROLE_A}, {role: ROLE_B}]}`.";
        reader.error(node.span, "wrong-type", "`role` names one role, and here is a list", help);
        return None;
    }
    let text = reader.text(node, "the value of `role`", "a role's key, such as `{role: ROLE_EDITOR}`")?;
    match RoleKey::parse(text) {
        Ok(key) => Some(key),
        Err(bad) => {
            let upper = text.to_ascii_uppercase().replace('-', "_");
            let help = [upper.clone(), format!("ROLE_{upper}")]
                .iter()
                .find(|guess| RoleKey::parse(guess).is_ok())
                .map_or_else(
                    || "Write the role's key as in the roles file.".to_owned(),
                    |guess| format!("Did you mean `{guess}`?"),
                );
            reader.error(node.span, "bad-word", bad.to_string(), help);
            None
        }
    }
}

fn membership(reader: &mut Reader<'_>, node: &Node) -> Option<Requirement> {
    const EXAMPLE: &str = "`{membership: oms >= PREMIUM}`";
    let text = reader.text(node, "the value of `membership`", EXAMPLE)?;
    let Some((service, tier)) = text.split_once(">=") else {
        let message = format!("`{text}` does not say a service and its lowest tier");
        let help = format!("Write {EXAMPLE}; `>=` is the only comparison.");
        reader.error(node.span, "bad-membership", message, help);
        return None;
    };
    let service = ServiceName::parse(service.trim());
    let tier = TierKey::parse(tier.trim());
    match (service, tier) {
        (Ok(service), Ok(tier)) => Some(Requirement::Membership { service, tier }),
        (Err(bad), _) | (_, Err(bad)) => {
            reader.error(node.span, "bad-word", bad.to_string(), format!("Write it like {EXAMPLE}."));
            None
        }
    }
}

fn owner(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    if let Kind::Map(entries) = &node.kind
        && let [entry] = entries.as_slice()
        && entry.value.is_nothing()
    {
        let help = format!("Write `{{owner: {}}}`.", entry.key.value);
        reader.error(node.span, "bad-owner", "the path parameter stands in braces here", help);
        return None;
    }
    let text = reader.text(node, "the value of `owner`", "the name of a path parameter, such as `{owner: user_id}`")?;
    let name = text.trim_start_matches('{').trim_end_matches('}').trim_end_matches("...");
    let name = name.split(':').next().unwrap_or_default();
    if name != text || name.is_empty() {
        let help = format!("Write only the parameter's name: `{{owner: {name}}}`.");
        reader.error(node.span, "bad-owner", format!("`{text}` is not the name of a path parameter"), help);
        return None;
    }
    Some(text.to_owned())
}

fn client(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<ipnet::IpNet>> {
    let items = reader.list(node, "the value of `client`", "a list of networks, such as `{client: [10.0.0.0/8]}`")?;
    if items.is_empty() {
        reader.error(
            node.span,
            "empty-list",
            "`client` names no network",
            "Name one, such as `{client: [10.0.0.0/8]}`.",
        );
        return None;
    }
    let networks: Vec<_> = items.iter().map(|item| values::network(reader, item)).collect();
    networks.into_iter().collect()
}

fn spelled(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
