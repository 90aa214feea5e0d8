//! Single values: times, sizes, dates, rates, hosts, networks, names.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;

use super::super::yaml::{Kind, Node, Reader};
use super::{HostPattern, RateKey, RateLimit, ReportOnly, Spanned};

/// The longest time that a file can ask for; a longer one is a slip of a unit.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// `500ms`, `120s`, `2m`, `1h`.
pub(super) fn duration(reader: &mut Reader<'_>, node: &Node, key: &str) -> Option<Duration> {
    let example = format!("a number and a unit, such as `{key}: 30s`");
    let text = reader.text(node, &format!("the value of `{key}`"), &example)?;
    let (number, unit) = split_number(text);
    let millis = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let help = match unit.to_ascii_lowercase().as_str() {
        "" if !number.is_empty() => format!("Add the unit: `{number}s` for seconds (also `ms`, `m`, `h`)."),
        "sec" | "secs" | "second" | "seconds" => format!("Write `{number}s`."),
        "min" | "mins" | "minute" | "minutes" => format!("Write `{number}m`."),
        "d" | "day" | "days" | "hour" | "hours" => "Write it in hours, such as `24h`.".to_owned(),
        _ => format!("Write {example}; units are `ms`, `s`, `m` and `h`."),
    };
    let value = millis
        .and_then(|millis| number.parse::<u64>().ok()?.checked_mul(millis))
        .map(Duration::from_millis)
        .filter(|value| !number.is_empty() && !value.is_zero() && *value <= LONGEST);
    if value.is_none() {
        let why = match (millis, number.parse::<u64>()) {
            (Some(_), Ok(0)) => "is no time at all",
            (Some(_), Ok(_)) => "is more than a week",
            _ => "is not a time",
        };
        reader.error(node.span, "bad-time", format!("`{text}` {why}"), help);
    }
    value
}

/// `1GiB`, `64KiB`, `0B`, in bytes.
pub(super) fn size(reader: &mut Reader<'_>, node: &Node, text: &str) -> Option<u64> {
    let (number, unit) = split_number(text);
    let factor = match unit {
        "B" => Some(1_u64),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        "TiB" => Some(1 << 40),
        _ => None,
    };
    let value = factor.and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor));
    if value.is_none() {
        let known = ["KiB", "MiB", "GiB", "TiB"];
        let meant =
            known.iter().find(|known| unit.get(..1).is_some_and(|first| known[..1].eq_ignore_ascii_case(first)));
        let help = match meant {
            Some(meant) if !number.is_empty() => format!("Write `{number}{meant}`."),
            _ if unit.is_empty() && !number.is_empty() => {
                format!("Add the unit: `{number}B` for bytes (also `KiB`, `MiB`, `GiB`).")
            }
            _ => "Write a number and a unit, such as `10MiB`, or `unlimited`.".to_owned(),
        };
        reader.error(node.span, "bad-size", format!("`{text}` is not a size"), help);
    }
    value
}

/// A text as leading digits and what follows, spaces between dropped.
fn split_number(text: &str) -> (&str, &str) {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    (&text[..end], text[end..].trim())
}

/// `30/min per subject`.
pub(super) fn rate_limit(reader: &mut Reader<'_>, node: &Node) -> Option<Spanned<RateLimit>> {
    const EXAMPLE: &str = "for example `rate_limit: 30/min per subject`";
    let text = reader.text(node, "the value of `rate_limit`", EXAMPLE)?;
    let (rate, per) = text.split_once(" per ").unwrap_or((text, ""));
    let (count, unit) = rate.split_once('/').unwrap_or((rate, ""));
    let (count, mut unit, mut per) = (count.trim(), unit.trim(), per.trim());
    // `30 per minute` says the time where the key belongs.
    if unit.is_empty() && matches!(per, "s" | "sec" | "second" | "m" | "min" | "minute" | "h" | "hour") {
        (unit, per) = (per, "");
    }
    let digits = count.bytes().all(|b| b.is_ascii_digit());
    let fault = match count.parse::<u32>().ok().filter(|_| digits) {
        None | Some(0) => Some((format!("`{count}` is not a number of requests"), format!("Write {EXAMPLE}."))),
        Some(count) => {
            let window = match unit {
                "s" => Ok(Duration::from_secs(1)),
                "min" => Ok(Duration::from_secs(60)),
                "h" => Ok(Duration::from_secs(3600)),
                other => Err(other),
            };
            let key = match per {
                "subject" => Ok(RateKey::Subject),
                "address" => Ok(RateKey::Address),
                other => Err(other),
            };
            match (window, key) {
                (Ok(window), Ok(per)) => {
                    return Some(Spanned { value: RateLimit { count, window, per }, span: node.span });
                }
                (Err(unit), _) => {
                    let meant = match unit {
                        "m" | "minute" => "min",
                        "sec" | "second" => "s",
                        "hour" => "h",
                        _ => "min",
                    };
                    let per = if per.is_empty() { "subject" } else { per };
                    let message = if unit.is_empty() {
                        "the rate does not say in how long".to_owned()
                    } else {
                        format!("`{unit}` is no unit of a rate: `s`, `min` or `h`")
                    };
                    Some((message, format!("Write `{count}/{meant} per {per}`.")))
                }
                (Ok(_), Err("")) => Some((
                    "the rate does not say per what".to_owned(),
                    format!("Write `{count}/{unit} per subject`, or `per address`."),
                )),
                (Ok(_), Err(per)) => Some((
                    format!("a rate cannot be counted per `{per}`"),
                    format!("Write `{count}/{unit} per subject`, or `per address`."),
                )),
            }
        }
    };
    if let Some((message, help)) = fault {
        reader.error(node.span, "bad-rate", message, help);
    }
    None
}

/// `{until: 2027-01-31}`.
pub(super) fn report_only(reader: &mut Reader<'_>, node: &Node) -> Option<Spanned<ReportOnly>> {
    const EXAMPLE: &str = "`report_only: {until: 2027-01-31}`";
    if matches!(node.kind, Kind::Refused) {
        return None;
    }
    let Kind::Map(entries) = &node.kind else {
        let help = format!("Write the day from which it is enforced: {EXAMPLE}.");
        reader.error(node.span, "wrong-type", "`report_only` must end on a day, so that it is not forgotten", help);
        return None;
    };
    let mut until = None;
    for entry in entries {
        if entry.key.value != "until" {
            reader.unknown_key(entry, "`report_only`", &["until"]);
            continue;
        }
        let text = reader.text(&entry.value, "the value of `until`", EXAMPLE)?;
        until = day(text);
        if until.is_none() {
            let message = format!("`{text}` is not a day of the calendar");
            reader.error(entry.value.span, "bad-date", message, "Write year, month and day, such as `2027-01-31`.");
        }
    }
    if entries.iter().all(|entry| entry.key.value != "until") {
        reader.error(node.span, "missing-key", "`report_only` does not say until when", format!("Write {EXAMPLE}."));
    }
    until.map(|until| Spanned { value: ReportOnly { until }, span: node.span })
}

/// 00:00 UTC of a day written `YYYY-MM-DD`, in seconds since the Unix epoch.
fn day(text: &str) -> Option<i64> {
    // jiff reads more forms than we want to explain.
    let shape = text.len() == 10
        && text.bytes().enumerate().all(|(at, b)| if at == 4 || at == 7 { b == b'-' } else { b.is_ascii_digit() });
    let date: jiff::civil::Date = shape.then(|| text.parse().ok()).flatten()?;
    let midnight = jiff::tz::TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?;
    Some(midnight.as_second())
}

/// The name of an upstream.
pub(super) fn upstream(reader: &mut Reader<'_>, node: &Node) -> Option<Spanned<String>> {
    let text = reader.text(node, "the value of `upstream`", "a name under `[upstreams]`, such as `upstream: oms`")?;
    if text.contains("://") || text.contains('/') || text.contains(char::is_whitespace) {
        let help =
            "Write the name of a table under `[upstreams]` in doorward.toml, and the address there as `endpoints`.";
        reader.error(node.span, "bad-upstream", format!("`{text}` is not the name of an upstream"), help);
        return None;
    }
    Some(Spanned { value: text.to_owned(), span: node.span })
}

/// A host or `*.` and a host.
pub(super) fn host(reader: &mut Reader<'_>, node: &Node) -> Option<HostPattern> {
    let text = reader.text(node, "a host", "a name such as `oms.example.com`")?;
    match host_pattern(text) {
        Ok(host) => Some(host),
        Err((message, help)) => {
            reader.error(node.span, "bad-host", message, help);
            None
        }
    }
}

fn host_pattern(text: &str) -> Result<HostPattern, (String, String)> {
    let lower = text.to_ascii_lowercase();
    if text == "*" {
        return Err((
            "`*` alone is any host".to_owned(),
            "Remove `hosts`; a file without it serves any host.".to_owned(),
        ));
    }
    if let Some((_, rest)) = lower.split_once("://") {
        let name = rest.split(['/', ':']).next().unwrap_or_default();
        return Err((format!("`{text}` has a scheme"), format!("Write only the host: `{name}`.")));
    }
    if let Some((name, _)) = lower.split_once('/') {
        return Err((format!("`{text}` has a path"), format!("Write only the host: `{name}`.")));
    }
    if let Some(inner) = lower.strip_prefix('[') {
        let address = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
        return match address {
            Some(_) => Ok(HostPattern::Exact(lower)),
            None => Err((
                format!("`{text}` is no IPv6 address in brackets"),
                "Write it like `\"[::1]\"`, without a port.".to_owned(),
            )),
        };
    }
    if lower.parse::<Ipv6Addr>().is_ok() {
        return Err((format!("`{text}` is an IPv6 address without brackets"), format!("Write `\"[{lower}]\"`.")));
    }
    if let Some((name, port)) = lower.rsplit_once(':') {
        let message = format!("`{text}` has the port {port}, and hosts are compared without one");
        return Err((message, format!("Write `{name}`.")));
    }
    if !text.is_ascii() {
        let help = "Write its ASCII form, which begins with `xn--`; clients send that one.";
        return Err((format!("`{text}` has letters outside ASCII"), help.to_owned()));
    }
    let name = lower.strip_suffix('.').unwrap_or(&lower);
    let (wildcard, rest) = match name.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, name),
    };
    if rest.contains('*') {
        let message = format!("`{text}` has a `*` that is not its whole first part");
        return Err((message, "Write `\"*.example.com\"`, which is any name below example.com.".to_owned()));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if rest.len() > 253 || !rest.split('.').all(label) {
        return Err((
            format!("`{text}` is not the name of a host"),
            "Write a name such as `oms.example.com`.".to_owned(),
        ));
    }
    Ok(if wildcard { HostPattern::Wildcard(format!(".{rest}")) } else { HostPattern::Exact(rest.to_owned()) })
}

/// A network or a single address.
pub(super) fn network(reader: &mut Reader<'_>, node: &Node) -> Option<IpNet> {
    let text = reader.text(node, "a network", "an address and its length, such as `10.0.0.0/8`")?;
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let Ok(network) = network else {
        let help = "Write an address such as `192.0.2.7`, or a network such as `10.0.0.0/8` or `2001:db8::/32`.";
        reader.error(node.span, "bad-network", format!("`{text}` is not an address or network"), help);
        return None;
    };
    if let IpAddr::V6(address) = network.addr()
        && let Some(mapped) = address.to_ipv4_mapped()
    {
        let message = format!("`{text}` is an IPv4 address written as IPv6, and would never match");
        let length = network.prefix_len().saturating_sub(96);
        reader.error(node.span, "bad-network", message, format!("Write `{mapped}/{length}`."));
        return None;
    }
    if network.addr() != network.network() {
        let message =
            format!("`{text}` is an address within a network, with bits behind its length of {}", network.prefix_len());
        let help = format!("Write `{}` for the network, or `{}` for the one address.", network.trunc(), network.addr());
        reader.error(node.span, "host-bits", message, help);
        return None;
    }
    Some(network)
}

/// The name of a header, in lower case.
pub(super) fn header(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.text(node, "a header", "its name, such as `X-Legacy-User`")?;
    if text.is_empty() || !text.bytes().all(is_token) || text.contains('*') {
        let help = "Write one header name, without colon, value or wildcard, such as `X-Legacy-User`.";
        reader.error(node.span, "bad-header", format!("`{text}` is not the name of a header"), help);
        return None;
    }
    Some(text.to_ascii_lowercase())
}

/// A method of `cors:`, in upper case.
pub(super) fn method_name(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.text(node, "a method", "its name, such as `GET`")?;
    if text.is_empty() || !text.bytes().all(is_token) {
        reader.error(node.span, "bad-method", format!("`{text}` is no method"), "Write its name, such as `GET`.");
        return None;
    }
    Some(text.to_ascii_uppercase())
}

/// An origin of `cors:` (RFC 6454 section 6.2), as a browser sends it.
pub(super) fn origin(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = reader.text(node, "an origin", "scheme and host, such as `https://app.example.com`")?;
    if text == "null" {
        let message = "the origin `null` is sent by any sandboxed page";
        reader.error(node.span, "bad-origin", message, "Remove it, and name the origins that may call.");
        return None;
    }
    let lower = text.to_ascii_lowercase();
    let good = lower.split_once("://").is_some_and(|(scheme, rest)| {
        let scheme_good = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let host = match rest.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() && !host.ends_with(':') => host,
            _ => rest,
        };
        scheme_good
            && !scheme.is_empty()
            && matches!(host_pattern(host), Ok(HostPattern::Exact(_)))
            && !rest.ends_with('.')
    });
    if !good {
        let trimmed = lower.split('/').take(3).collect::<Vec<_>>().join("/");
        let help = if lower.contains("://") && trimmed != lower {
            format!("Write it without a path: `{trimmed}`.")
        } else {
            "Write scheme and host, and a port if it is not the usual one, such as `https://app.example.com`."
                .to_owned()
        };
        reader.error(node.span, "bad-origin", format!("`{text}` is not an origin"), help);
        return None;
    }
    // A browser never writes the port that the scheme implies.
    let usual = lower.strip_prefix("https:").and_then(|_| lower.strip_suffix(":443"));
    let usual = usual.or_else(|| lower.strip_prefix("http:").and_then(|_| lower.strip_suffix(":80")));
    Some(usual.unwrap_or(&lower).to_owned())
}

/// A byte of a token (RFC 9110 section 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
