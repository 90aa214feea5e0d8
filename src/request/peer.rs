//! Who is at the other end: the TCP peer, and the client behind trusted proxies (THREATS T29).

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

use super::Rejection;

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

impl TrustedProxies {
    /// Trusts these networks. An IPv4-mapped IPv6 address is compared as IPv4.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether the TCP peer is one of them.
    #[must_use]
    pub fn contains(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.iter().any(|network| network.contains(&peer))
    }

    /// The client behind `peer`. `X-Forwarded-For` (all occurrences, joined in order) is read from the
    /// right to the first untrusted address, only if the peer itself is trusted.
    ///
    /// # Errors
    /// `bad_request` for a malformed element in a trusted proxy's header.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Result<Client, Rejection> {
        let _ = (peer, headers);
        todo!()
    }
}
