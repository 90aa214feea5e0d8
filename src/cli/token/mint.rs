//! `doorward token mint`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::app;
use crate::cli::{Context, FOLLOWS};
use crate::clock::Timestamp;
use crate::config::{ConfigError, IssuerSettings, KeySource, Settings, issuers, quantity};
use crate::rbac::{Membership, RoleKey, ServiceName, TierKey};
use crate::token::Issuer;
use crate::token::mint::{MintRequest, mint};

/// Make a token and print it, alone, on the standard output
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    curl -H \"Authorization: Bearer $(doorward token mint --sub alice --role ROLE_EDITOR)\" http://127.0.0.1:8090/api/v1/schema\n  \
    doorward token mint --sub bob --role ROLE_USER --membership oms=PREMIUM --ttl 5m")]
pub(in crate::cli) struct Args {
    /// The subject's id
    #[arg(long, value_name = "ID")]
    sub: String,
    /// A role; may be given more than once
    #[arg(long = "role", value_name = "ROLE_KEY", value_parser = role, num_args = 1..)]
    roles: Vec<RoleKey>,
    /// A membership; may be given more than once
    #[arg(long = "membership", value_name = "SERVICE=TIER", value_parser = membership, num_args = 1..)]
    memberships: Vec<Membership>,
    /// How long it is good for, at most the issuer's max_lifetime
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = ttl)]
    ttl: Duration,
    /// The issuer's name in the configuration; default: the one with keys = "local", or the only one
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// Display name
    #[arg(long)]
    name: Option<String>,
    /// E-mail address
    #[arg(long)]
    email: Option<String>,
    /// Session id
    #[arg(long, value_name = "ID")]
    session: Option<String>,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    let chosen = choose(&settings.auth.issuers, args.issuer.as_deref())?;
    let issuers = load(&settings, chosen)?;
    let issuer = issuers.iter().find(|issuer| *issuer.name == *chosen.name).context("its keys are not there")?;
    // In this order (T3): what a token says is at least as new as its number, and the number as its time.
    let now = Timestamp::now();
    let uv = if issuer.own { Some(app::last_number(&settings)?) } else { None };
    let request = MintRequest {
        uv,
        subject: &args.sub,
        roles: &args.roles,
        memberships: &args.memberships,
        session: args.session.as_deref(),
        name: args.name.as_deref(),
        email: args.email.as_deref(),
        ttl: args.ttl,
        ..MintRequest::default()
    };
    let token = mint(issuer, &request, now)?;
    writeln!(context.out, "{token}")?;
    Ok(ExitCode::SUCCESS)
}

/// The issuers with their keys. doorward's own are made where they are missing, if it is they that sign.
fn load(settings: &Settings, chosen: &IssuerSettings) -> anyhow::Result<Vec<Issuer>> {
    let auth = &settings.auth;
    if chosen.keys != KeySource::Local || auth.local_keys.exists() {
        return Ok(issuers::load_existing(auth).map_err(ConfigError)?);
    }
    if settings.follows() {
        bail!(FOLLOWS);
    }
    app::refuse_another_owner(&auth.local_keys)?;
    Ok(issuers::load(auth).map_err(ConfigError)?)
}

fn choose<'i>(issuers: &'i [IssuerSettings], name: Option<&str>) -> anyhow::Result<&'i IssuerSettings> {
    let names = issuers.iter().map(|issuer| issuer.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, issuers) {
        (_, []) => bail!("the configuration has no [[auth.issuers]], so there is nobody to sign a token"),
        (Some(name), _) => issuers
            .iter()
            .find(|issuer| issuer.name == name)
            .with_context(|| format!("no issuer is named {name:?}; there are: {names}")),
        (None, [only]) => Ok(only),
        (None, _) => issuers
            .iter()
            .find(|issuer| issuer.keys == KeySource::Local)
            .with_context(|| format!("none of the issuers has keys = \"local\"; name one with --issuer: {names}")),
    }
}

fn role(text: &str) -> Result<RoleKey, String> {
    RoleKey::parse(text).map_err(|error| error.to_string())
}

fn membership(text: &str) -> Result<Membership, String> {
    let (service, tier) = text.split_once('=').ok_or("expected SERVICE=TIER, for example oms=PREMIUM")?;
    let service = ServiceName::parse(service).map_err(|error| error.to_string())?;
    let tier = TierKey::parse(tier).map_err(|error| error.to_string())?;
    Ok(Membership { service, tier })
}

fn ttl(text: &str) -> Result<Duration, String> {
    quantity::duration(text).filter(|ttl| !ttl.is_zero()).ok_or_else(|| format!("expected {}", quantity::DURATION))
}
