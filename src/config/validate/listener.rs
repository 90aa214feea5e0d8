//! What every listener can be told: how it speaks TLS.

use std::path::PathBuf;

use super::super::walk::Section;
use super::path;
use crate::net::{CertificateFiles, ClientAuth, TlsFiles};

/// `tls = { certificates = [{ cert, key }], client_ca, client_auth }`; absent: the listener is plain. `key` is the key of the
/// table, for messages about the files.
pub(super) fn tls(listener: &Section<'_>, key: &'static str) -> Option<TlsFiles> {
    let section = listener.section("tls");
    if !listener.has("tls") {
        // So that every key is known, though it is asked for in a table that is not there.
        let _ = (section.has("certificates"), section.has("client_ca"), section.has("client_auth"));
        return None;
    }
    let mut certificates = Vec::new();
    for certificate in section.sections("certificates") {
        let file = |name| {
            let found = path(&certificate, name);
            if found.is_none() && !certificate.has(name) {
                certificate.mistake(name, "is missing", format!("Name the PEM file: `{name} = \"…\"`."));
            }
            found.unwrap_or_default()
        };
        certificates.push(CertificateFiles { cert: file("cert"), key: file("key") });
    }
    if certificates.is_empty() {
        section.mistake(
            "certificates",
            "names no certificate",
            "Write `certificates = [{ cert = \"cert.pem\", key = \"key.pem\" }]`.",
        );
    }
    let client_ca: Option<PathBuf> = path(&section, "client_ca");
    let client_auth =
        section.word("client_auth", &[("required", ClientAuth::Required), ("optional", ClientAuth::Optional)]);
    if client_auth.is_some() && client_ca.is_none() {
        section.mistake(
            "client_auth",
            "says how client certificates are asked for, but no `client_ca` says whose are good",
            "Name a PEM file of authorities: `client_ca = \"clients.pem\"`.",
        );
    }
    Some(TlsFiles { key, certificates, client_ca, client_auth: client_auth.unwrap_or_default() })
}
