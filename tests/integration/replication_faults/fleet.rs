//! Several doorward processes that share what is revoked through Redis: the first is the control plane, the others follow it.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Behaviour, Builder, Doorward, Issuer, ROLES, Upstream, doorward, eventually};

/// How long anything may take until it is well again, on a machine that is busy with other things.
pub(super) const RECOVERY: Duration = Duration::from_secs(30);

/// A fleet, described.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    urls: Vec<String>,
    on_stale: &'static str,
    settings: Vec<(&'static str, toml::Value)>,
    of_followers: Vec<(&'static str, toml::Value)>,
}

/// A control plane and followers.
pub(super) struct Fleet {
    /// The first is the control plane.
    pub(super) gateways: Vec<Doorward>,
    pub(super) issuer: Issuer,
    _upstream: Upstream,
    _keys: TempDir,
}

/// One process for each URL of Redis; the first is the control plane.
pub(super) fn fleet(urls: &[&str]) -> Setup {
    let urls = urls.iter().map(|url| (*url).to_owned()).collect();
    Setup { urls, on_stale: "deny", settings: Vec::new(), of_followers: Vec::new() }
}

impl Setup {
    pub(super) fn on_stale(mut self, what: &'static str) -> Self {
        self.on_stale = what;
        self
    }

    /// A further setting of every process.
    pub(super) fn setting(mut self, key: &'static str, value: impl Into<toml::Value>) -> Self {
        self.settings.push((key, value.into()));
        self
    }

    /// A further setting of those that follow.
    pub(super) fn of_followers(mut self, key: &'static str, value: impl Into<toml::Value>) -> Self {
        self.of_followers.push((key, value.into()));
        self
    }

    /// Starts all, each waited for.
    pub(super) fn start(self) -> Fleet {
        let upstream = Upstream::start(Behaviour::With(Vec::new()));
        let issuer = Issuer::eddsa();
        let keys = tempfile::tempdir().unwrap();
        let file = keys.path().join("local-keys.json");
        std::fs::write(&file, issuer.private_jwks().to_string()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let describe = |url: &str| {
            // Its own keys, because only they name sessions that are believed (T7).
            let own = toml::toml! {
                name = "doorward"
                audience = ["oms"]
                keys = "local"
                algorithms = ["EdDSA"]
            };
            let mut own = own.clone();
            own.insert("issuer".into(), issuer.url.clone().into());
            let roles = ROLES.replace("roles:\n", "roles:\n  ROLE_REVOKER: { permissions: ['session:revoke'] }\n");
            let builder = doorward()
                .roles(&roles)
                .upstream(&upstream)
                .setting("auth.issuers", vec![toml::Value::from(own)])
                .setting("auth.local_keys", file.to_str().unwrap())
                .setting("redis.url", url)
                .setting("revocation.max_staleness", format!("{}s", MAX_STALENESS.as_secs()))
                .setting("revocation.on_stale", self.on_stale);
            self.settings.iter().fold(builder, |builder: Builder, (key, value)| builder.setting(key, value.clone()))
        };
        let control = describe(&self.urls[0]).start();
        let public = public_key(&control);
        let mut gateways = vec![control];
        for url in &self.urls[1..] {
            let follower = describe(url).setting("publication.public_keys", vec![public.clone()]);
            let set = |builder: Builder, (key, value): &(&str, toml::Value)| builder.setting(key, value.clone());
            gateways.push(self.of_followers.iter().fold(follower, set).start());
        }
        Fleet { gateways, issuer, _upstream: upstream, _keys: keys }
    }
}

/// `[revocation] max_staleness` of every process of a fleet.
pub(super) const MAX_STALENESS: Duration = Duration::from_secs(3);

impl Fleet {
    pub(super) fn token(&self, subject: &str, session: &str, id: &str) -> String {
        self.issuer.token().claim("sub", subject).claim("sid", session).claim("jti", id).sign()
    }

    /// A token that may revoke.
    pub(super) fn revoker(&self) -> String {
        self.issuer.with_roles("root", &["ROLE_REVOKER"])
    }

    /// Revokes at the control plane: what it answered.
    pub(super) fn revoke(&self, entry: &Value) -> (u16, Value) {
        let answer =
            self.gateways[0].admin_request("POST", "/api/revocations", Some(&self.revoker()), &entry.to_string());
        (answer.status, answer.json())
    }

    /// Waits until every gateway refuses this token as revoked.
    pub(super) fn all_refuse(&self, token: &str) {
        for (index, gateway) in self.gateways.iter().enumerate() {
            eventually(&format!("gateway {index} refuses what was revoked"), RECOVERY, || {
                let answer = gateway.get_as("/items", token);
                (answer.status == 401).then(|| assert_eq!(answer.reason(), "revoked"))
            });
        }
    }

    /// Waits until every gateway lets this token through.
    pub(super) fn all_accept(&self, token: &str) {
        for (index, gateway) in self.gateways.iter().enumerate() {
            eventually(&format!("gateway {index} lets a good token through"), RECOVERY, || {
                (gateway.get_as("/items", token).status == 200).then_some(())
            });
        }
    }
}

/// The public half of the publication key that a control plane has made.
fn public_key(control: &Doorward) -> String {
    let file = control.path("data/publication-key.jwks.json");
    let set: Value = serde_json::from_slice(&std::fs::read(file).expect("a publication key was made")).unwrap();
    set["keys"][0]["x"].as_str().expect("an Ed25519 key").to_owned()
}
