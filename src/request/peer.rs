//! Who is at the other end: the TCP peer, and the client behind trusted proxies (THREATS T29).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::{IpNet, Ipv4Net};

use super::Rejection;
use super::head::is_token;

/// The networks whose forwarding headers are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

/// The client of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The client's address: the first untrusted element of the forwarding chain read from the right,
    /// or the TCP peer itself.
    pub address: IpAddr,
    /// Whether the TCP peer is a trusted proxy, so that its forwarding headers are extended, not replaced.
    pub through_trusted_proxy: bool,
}

/// Hops that a forwarding header may name. A longer chain is a loop or an attack on whoever reads it.
const MOST_HOPS: usize = 64;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl TrustedProxies {
    /// Trusts these networks. An IPv4-mapped IPv6 address or network is compared as IPv4.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks.into_iter().map(canonical).collect())
    }

    /// Whether the TCP peer is one of them.
    #[must_use]
    pub fn contains(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.iter().any(|network| network.contains(&peer))
    }

    /// The client behind `peer`. `X-Forwarded-For` (all occurrences, joined in order) is read from the
    /// right to the first untrusted address, only if the peer itself is trusted; if all are trusted, the
    /// leftmost is the client. Without `X-Forwarded-For`, the `for=` of `Forwarded` (RFC 7239) is read likewise.
    ///
    /// # Errors
    /// `bad_request` for a malformed element anywhere in a trusted proxy's header (`unknown` and obfuscated
    /// names included, since they hide who the client is), or for more than 64 of them.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Result<Client, Rejection> {
        let peer = peer.to_canonical();
        if !self.contains(peer) {
            return Ok(Client { address: peer, through_trusted_proxy: false });
        }
        let mut chain = Chain { trusted: self, address: peer, hops: 0, ended: false };
        if headers.contains_key(X_FORWARDED_FOR) {
            // Right to left: the last line first, and each line from its end.
            let lines = headers.get_all(X_FORWARDED_FOR);
            for line in lines.iter().rev() {
                for element in text(line)?.rsplit(',') {
                    chain.push(node(element.trim_matches(OWS)).ok_or_else(malformed)?)?;
                }
            }
        } else {
            for line in headers.get_all(FORWARDED).iter().rev() {
                for address in forwarded(text(line)?)?.into_iter().rev() {
                    chain.push(address)?;
                }
            }
        }
        Ok(Client { address: chain.address, through_trusted_proxy: true })
    }
}

/// A forwarding chain while it is read from the right.
struct Chain<'t> {
    trusted: &'t TrustedProxies,
    address: IpAddr,
    hops: usize,
    /// Whether the first untrusted address has been seen: whoever stands left of it is only claimed.
    ended: bool,
}

impl Chain<'_> {
    fn push(&mut self, address: IpAddr) -> Result<(), Rejection> {
        self.hops += 1;
        if self.hops > MOST_HOPS {
            return Err(Rejection::request("over 64 elements in a forwarding header"));
        }
        if !self.ended {
            self.address = address.to_canonical();
            self.ended = !self.trusted.contains(address);
        }
        Ok(())
    }
}

const OWS: [char; 2] = [' ', '\t'];

fn malformed() -> Rejection {
    Rejection::request("a malformed element in a forwarding header")
}

fn text(value: &HeaderValue) -> Result<&str, Rejection> {
    value.to_str().map_err(|_| malformed())
}

/// `1.2.3.4`, `1.2.3.4:5678`, `[::1]`, `[::1]:443` or `::1`.
fn node(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        let port_fits = rest.is_empty() || is_port(rest.strip_prefix(':')?);
        return port_fits.then(|| address.parse::<Ipv6Addr>().ok())?.map(IpAddr::V6);
    }
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (address, port) = text.split_once(':')?;
    is_port(port).then(|| address.parse::<Ipv4Addr>().ok())?.map(IpAddr::V4)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// The `for` of each element of one `Forwarded` line, in order (RFC 7239 section 4).
fn forwarded(line: &str) -> Result<Vec<IpAddr>, Rejection> {
    let mut addresses = Vec::new();
    let mut rest = line.trim_matches(OWS);
    loop {
        let mut address = None;
        // One element: `name=value` pairs between semicolons.
        loop {
            let (name, behind) = token(rest).ok_or_else(malformed)?;
            let (value, behind) = value(behind.strip_prefix('=').ok_or_else(malformed)?).ok_or_else(malformed)?;
            if name.eq_ignore_ascii_case("for") && address.replace(node(&value).ok_or_else(malformed)?).is_some() {
                return Err(malformed());
            }
            rest = behind.trim_start_matches(OWS);
            match rest.strip_prefix(';') {
                Some(behind) => rest = behind.trim_start_matches(OWS),
                None => break,
            }
        }
        addresses.push(address.ok_or_else(malformed)?);
        if rest.is_empty() {
            return Ok(addresses);
        }
        if addresses.len() > MOST_HOPS {
            return Err(Rejection::request("over 64 elements in a forwarding header"));
        }
        rest = rest.strip_prefix(',').ok_or_else(malformed)?.trim_start_matches(OWS);
    }
}

/// A token (RFC 9110 section 5.6.2) and what follows it.
fn token(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().position(|b| !is_token(b)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A token or a quoted string (RFC 9110 section 5.6.4), unquoted, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(token, rest)| (token.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

/// An IPv4-mapped IPv6 network as the IPv4 network that it is.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let address = mapped.network().to_ipv4_mapped();
    let prefix = mapped.prefix_len().checked_sub(96);
    match (address, prefix) {
        (Some(address), Some(prefix)) => Ipv4Net::new(address, prefix).map_or(network, IpNet::V4),
        _ => network,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxies() -> TrustedProxies {
        TrustedProxies::new(["10.0.0.0/8", "fd00::/8", "::ffff:192.0.2.0/120"].map(|n| n.parse().unwrap()).to_vec())
    }

    fn client(peer: &str, lines: &[(&'static str, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        proxies().client(peer.parse().unwrap(), &headers).ok().map(|client| client.address.to_string())
    }

    fn forwarded_for(value: &str) -> Option<String> {
        client("10.0.0.1", &[("x-forwarded-for", value)])
    }

    #[test]
    fn t29_an_untrusted_peer_is_the_client_whatever_it_writes() {
        let direct = client("203.0.113.9", &[("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1")]);
        assert_eq!(direct.as_deref(), Some("203.0.113.9"));
        assert_eq!(client("203.0.113.9", &[("x-forwarded-for", "rubbish")]).as_deref(), Some("203.0.113.9"));
        let known = proxies().client("203.0.113.9".parse().unwrap(), &HeaderMap::new()).unwrap();
        assert!(!known.through_trusted_proxy);
    }

    #[test]
    fn t29_the_chain_is_read_from_the_right_to_the_first_untrusted_address() {
        assert_eq!(forwarded_for("1.1.1.1, 203.0.113.7, 10.9.9.9").as_deref(), Some("203.0.113.7"));
        assert_eq!(forwarded_for("203.0.113.7").as_deref(), Some("203.0.113.7"));
        assert_eq!(forwarded_for("10.1.1.1,10.2.2.2").as_deref(), Some("10.1.1.1"));
        assert_eq!(client("10.0.0.1", &[]).as_deref(), Some("10.0.0.1"));
        assert_eq!(client("::ffff:10.0.0.1", &[("x-forwarded-for", "8.8.8.8")]).as_deref(), Some("8.8.8.8"));
        assert_eq!(client("192.0.2.5", &[("x-forwarded-for", "8.8.8.8")]).as_deref(), Some("8.8.8.8"));
        let two_lines = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.7, 10.3.3.3")];
        assert_eq!(client("10.0.0.1", &two_lines).as_deref(), Some("203.0.113.7"));
    }

    #[test]
    fn t29_elements_may_carry_ports() {
        assert_eq!(forwarded_for("203.0.113.7:5678").as_deref(), Some("203.0.113.7"));
        assert_eq!(forwarded_for("[2001:db8::1]:443").as_deref(), Some("2001:db8::1"));
        assert_eq!(forwarded_for("[2001:db8::1]").as_deref(), Some("2001:db8::1"));
        assert_eq!(forwarded_for("2001:db8::1").as_deref(), Some("2001:db8::1"));
        assert_eq!(forwarded_for("::ffff:203.0.113.7").as_deref(), Some("203.0.113.7"));
    }

    #[test]
    fn t29_a_malformed_element_is_refused() {
        for value in [
            "",
            "unknown",
            "_hidden",
            "1.2.3.4:",
            "1.2.3.4:x",
            "1.2.3.4:+1",
            "1.2.3",
            "1.2.3.4,,5.6.7.8",
            "1.2.3.4,",
            "[::1",
            "[::1]x",
            "[1.2.3.4]",
            "fe80::1%eth0",
            "1.2.3.4 5.6.7.8",
            "rubbish, 203.0.113.7",
            "01.2.3.4",
            "1.2.3.4:99999",
        ] {
            assert_eq!(forwarded_for(value), None, "{value:?}");
        }
        assert_eq!(forwarded_for(&["10.0.0.2"; 65].join(",")), None);
        assert!(forwarded_for(&["10.0.0.2"; 64].join(",")).is_some());
    }

    #[test]
    fn t29_forwarded_is_read_where_there_is_no_x_forwarded_for() {
        let read = |value: &str| client("10.0.0.1", &[("forwarded", value)]);
        assert_eq!(read("for=203.0.113.7;proto=https, for=10.2.2.2").as_deref(), Some("203.0.113.7"));
        assert_eq!(read("proto=https;For=\"[2001:db8::1]:80\"").as_deref(), Some("2001:db8::1"));
        assert_eq!(read("for=1.1.1.1;host=\"a, for=9.9.9.9\"").as_deref(), Some("1.1.1.1"));
        assert_eq!(read("for=\"1.\\1.1.1\"").as_deref(), Some("1.1.1.1"));
        for value in [
            "",
            "for=unknown",
            "for=_x",
            "proto=https",
            "for=1.1.1.1;for=2.2.2.2",
            "for=\"1.1.1.1",
            "for",
            "for=1.1.1.1,",
            "for= 1.1.1.1",
        ] {
            assert_eq!(read(value), None, "{value:?}");
        }
        let both = [("forwarded", "for=rubbish"), ("x-forwarded-for", "203.0.113.7")];
        assert_eq!(client("10.0.0.1", &both).as_deref(), Some("203.0.113.7"));
    }

    proptest! {
        /// What stands left of the first untrusted address never changes the answer.
        #[test]
        fn t29_the_client_cannot_choose_its_address(claims in proptest::collection::vec(any::<IpAddr>(), 0..20), real in any::<[u8; 4]>()) {
            let real = IpAddr::from(real);
            prop_assume!(!proxies().contains(real));
            let chain: Vec<String> = claims.iter().map(ToString::to_string).chain([real.to_string(), "10.4.4.4".to_owned()]).collect();
            prop_assert_eq!(forwarded_for(&chain.join(", ")), Some(real.to_string()));
        }

        #[test]
        fn no_forwarding_header_panics(value in "[ -~]{0,80}") {
            client("10.0.0.1", &[("x-forwarded-for", &value)]);
            client("10.0.0.1", &[("forwarded", &value)]);
        }
    }
}
