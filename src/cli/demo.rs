//! `doorward demo`: everything on this machine in one command.
//!
//! An example OMS that knows nothing of users, the gateway in front of it with `policies/oms.yaml`, the admin listener,
//! three people's tokens, and the curl lines that show what each of them may do.

mod oms;
mod script;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};

use self::script::{Addresses, Person, Script};
use super::{Context, Output};
use crate::app::{self, Doorward};
use crate::clock::Timestamp;
use crate::config::{ConfigError, Settings, issuers};
use crate::gateway::upstream::{Address, Endpoint, Scheme};
use crate::telemetry::{self, tracing::LogLevel};
use crate::token::Issuer;

/// How long the demo's tokens are good for: as long as its issuer allows.
const LIFETIME: Duration = Duration::from_hours(1);

/// Run an example service and doorward in front of it, and print the curl lines to try
///
/// Nothing is installed and nothing is kept: the service lives in memory, and the keys are made for this run. It has a
/// configuration of its own and listens on 127.0.0.1 only. Ctrl-C ends it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  doorward demo\n  doorward demo --gateway-port 0 --admin-port 0 --oms-port 0 --output json"
)]
pub(super) struct Args {
    /// Port of the gateway; 0: any
    #[arg(long, value_name = "PORT", default_value_t = 8090)]
    gateway_port: u16,
    /// Port of the admin listener; 0: any
    #[arg(long, value_name = "PORT", default_value_t = 8091)]
    admin_port: u16,
    /// Port of the example service; 0: any
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    oms_port: u16,
    /// Text with curl lines, or one line of JSON with addresses, tokens and steps; then nothing but failures is logged
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    if context.config.is_some() {
        bail!("the demo has a configuration of its own; leave --config away, or use `doorward run --config FILE`");
    }
    let oms = oms::Oms::start(bind(args.oms_port, "--oms-port")?)?;
    // The gateway and the admin listener bind for themselves; this finds out which option to name if they cannot.
    drop((bind(args.gateway_port, "--gateway-port")?, bind(args.admin_port, "--admin-port")?));
    let keys = Keys::make()?;
    let settings = settings(args, oms.address(), keys.file())?;
    let issuers = issuers::load(&settings.auth).map_err(ConfigError)?;
    let issuer = issuers.first().context("the demo's configuration has no issuer")?;
    let people = people(issuer)?;
    let messages = telemetry::tracing::init(settings.log.format, settings.log.level)?;
    let doorward =
        Doorward::start(&settings, None).inspect_err(|_| messages.flush_within(super::run::FLUSH_PATIENCE))?;
    let addresses = Addresses {
        gateway: doorward.gateway_address().context("the gateway does not say where it listens")?,
        admin: doorward.admin_address().context("the admin listener does not say where it listens")?,
        oms: oms.address(),
        socket: settings.admin.socket.clone(),
    };
    let script = Script::new(&addresses, people);
    match args.output {
        Output::Text => script.write(context.out)?,
        Output::Json => writeln!(context.out, "{}", script.to_json())?,
    }
    context.out.flush()?;
    let code = app::run_until_signal(doorward);
    oms.stop();
    drop(keys);
    messages.flush_within(super::run::FLUSH_PATIENCE);
    Ok(code)
}

fn bind(port: u16, option: &str) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).with_context(|| format!("cannot listen on {address}; choose another port with {option}"))
}

/// The shipped configuration, on 127.0.0.1 and with keys of its own.
fn settings(args: &Args, oms: SocketAddr, keys: PathBuf) -> anyhow::Result<Settings> {
    let (mut settings, _) = Settings::shipped()?;
    settings.gateway.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, args.gateway_port));
    settings.admin.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, args.admin_port));
    settings.revocation.folder = keys.with_file_name("revocations");
    settings.publication.key_file = Some(keys.with_file_name("publication-key.jwks.json"));
    settings.admin.socket = Some(keys.with_file_name("doorward.sock")).filter(|path| path.as_os_str().len() < 100);
    settings.auth.local_keys = keys;
    for upstream in settings.upstreams.values_mut() {
        let address = Address::Tcp { host: oms.ip().to_string(), port: oms.port() };
        upstream.endpoints = vec![Endpoint { scheme: Scheme::Http, address, authority: oms.to_string() }];
    }
    // What the program does is told by the script; each request's line stays, unless a script reads the output.
    settings.log.level = LogLevel::Warn;
    settings.log.access = args.output == Output::Text;
    // It says nothing here that the request's own line does not.
    settings.events.log = false;
    Ok(settings)
}

fn people(issuer: &Issuer) -> anyhow::Result<[Person; 3]> {
    let person =
        |variable, subject, name, role| Person::new(issuer, variable, subject, name, role, LIFETIME, Timestamp::now());
    Ok([
        person("VIEWER_TOKEN", "vera", "Vera Vogel", "ROLE_USER")?,
        person("EDITOR_TOKEN", "emil", "Emil Škoda", "ROLE_EDITOR")?,
        person("ADMIN_TOKEN", "ada", "Ada Adams", "ROLE_SUPER_ADMIN")?,
    ])
}

/// A folder for this run's keys and revocations that is gone when it is dropped.
struct Keys(PathBuf);

impl Keys {
    fn make() -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let folder = std::env::temp_dir().join(format!("doorward-demo-{}", uuid::Uuid::now_v7()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
        made.with_context(|| format!("cannot make a folder for this run's keys, {}", folder.display()))?;
        Ok(Self(folder))
    }

    fn file(&self) -> PathBuf {
        self.0.join("keys.jwks.json")
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // The folder is private and in the temporary directory; a failure to remove it harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn args(port: u16) -> Args {
        Args { gateway_port: port, admin_port: 0, oms_port: 0, output: Output::Json }
    }

    #[test]
    fn the_demo_runs_with_what_is_shipped_and_keys_that_leave_no_trace() {
        let keys = Keys::make().unwrap();
        let folder = keys.0.clone();
        let settings = settings(&args(0), "127.0.0.1:4711".parse().unwrap(), keys.file()).unwrap();
        assert!(settings.gateway.listen.ip().is_loopback());
        assert_eq!(settings.upstreams["oms"].endpoints[0].authority, "127.0.0.1:4711");
        let issuers = issuers::load(&settings.auth).unwrap();
        let people = people(&issuers[0]).unwrap();
        let claims = crate::token::Verifier::new(issuers).verify(&people[1].token, Timestamp::now()).unwrap();
        assert_eq!((&*claims.subject, claims.token_id.as_deref()), ("emil", Some(&*people[1].token_id)));
        drop(keys);
        assert!(!folder.exists());
    }

    #[test]
    fn a_port_that_is_taken_is_one_clear_line() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let said = format!("{:#}", bind(port, "--gateway-port").unwrap_err());
        assert!(
            said.starts_with(&format!("cannot listen on 127.0.0.1:{port}; choose another port with --gateway-port: ")),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1);
    }
}
