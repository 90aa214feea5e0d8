//! `doorward policy explain`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use super::files::{Chosen, Files, Listeners};
use crate::cli::verifying::verify;
use crate::cli::{Context, FAILED, Output};
use crate::clock::Timestamp;
use crate::policy::explain::{Ask, Explanation, Who, explain};
use crate::policy::{Outcome, Snapshot};
use crate::rbac::{Membership, RoleKey, ServiceName, TierKey};
use crate::reason::Reason;
use crate::request::Host;
use crate::token::TokenRejection;

/// Say how a request would be decided, which route it matches, what is asked for, what is missing (exit 1: deny)
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    doorward policy explain 'GET /api/v1/schema' --as role:ROLE_USER\n  \
    doorward policy explain 'DELETE /api/v1/schema/1' --token \"$TOKEN\"\n  \
    doorward policy explain 'GET /api/v1/users/bob/orders' --as sub:bob,role:ROLE_USER,membership:oms=FREE")]
pub(in crate::cli) struct Args {
    /// Method and path, as one argument
    #[arg(value_name = "METHOD PATH", value_parser = request)]
    request: (String, String),
    /// Who asks: `anonymous`, or a list of `sub:ID`, `role:KEY`, `membership:SERVICE=TIER`
    #[arg(long = "as", value_name = "WHO", value_parser = somebody, required_unless_present = "token")]
    who: Option<Somebody>,
    /// Who asks: the subject of this token, if the configured issuers accept it
    #[arg(long, value_name = "TOKEN", conflicts_with = "who")]
    token: Option<String>,
    /// The host that is addressed; default: any, or where every policy file has `hosts`, the first of them
    #[arg(long, value_parser = host)]
    host: Option<Host>,
    /// The client's address
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    client: IpAddr,
    /// Ask the admin listener's own policy
    #[arg(long, conflicts_with = "files")]
    admin: bool,
    /// A policy file; default: those of the configuration
    #[arg(long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The roles file; default: that of the configuration
    #[arg(long, value_name = "FILE")]
    roles: Option<PathBuf>,
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Who asks; `None` for the subject is nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Somebody {
    subject: Option<String>,
    roles: Vec<RoleKey>,
    memberships: Vec<Membership>,
}

impl Somebody {
    fn as_who(&self) -> Who<'_> {
        match &self.subject {
            None => Who::Anonymous,
            Some(subject) => Who::Subject { subject, roles: &self.roles, memberships: &self.memberships },
        }
    }
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    let of = if args.admin { Listeners::Admin } else { Listeners::Gateway };
    let chosen = Chosen { files: &args.files, roles: args.roles.as_deref(), of };
    let files = Files::load(&chosen, context)?;
    let snapshot = files.snapshots()?.first().context("there is no policy file")?;
    let now = Timestamp::now();
    let (who, refused) = match &args.token {
        None => (args.who.clone().unwrap_or_default(), None),
        Some(token) => match holder(token, snapshot, context)? {
            Ok(holder) => (holder, None),
            Err(refused) => (Somebody::default(), Some(refused)),
        },
    };
    let (method, target) = &args.request;
    let unnamed = snapshot.unnamed_host().filter(|_| args.host.is_none());
    if let Some(host) = &unnamed {
        writeln!(context.err, "asked about the host {}; --host names another", host.as_str())?;
    }
    let host = args.host.as_ref().or(unnamed.as_ref());
    let ask = Ask { method, target, host, client: args.client, who: who.as_who(), now };
    let mut explanation = explain(snapshot, &ask);
    if let Some(refused) = refused {
        refuse(&mut explanation, refused);
    }
    match args.output {
        Output::Json => context.json(&explanation.to_json())?,
        Output::Text => write!(context.out, "{}", explanation.to_text())?,
    }
    Ok(if explanation.outcome == Outcome::Allow { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Whose token it is, as the gateway would see it.
fn holder(
    token: &str,
    snapshot: &Snapshot,
    context: &mut Context<'_>,
) -> anyhow::Result<Result<Somebody, TokenRejection>> {
    let settings = context.settings()?;
    let claims = match verify(&settings, token.trim())? {
        Ok(claims) => claims,
        Err(refused) => return Ok(Err(refused)),
    };
    Ok(Ok(Somebody {
        subject: Some(claims.subject.to_string()),
        roles: claims.conferred(&claims.roles, snapshot.roles()).cloned().collect(),
        memberships: claims.memberships.to_vec(),
    }))
}

/// What a refused token makes of the answer to somebody without one: a guarded route is denied for the token's fault,
/// and report mode does not help (T21).
fn refuse(explanation: &mut Explanation, refused: TokenRejection) {
    if explanation.reason() == Some(Reason::MissingToken) {
        explanation.outcome = Outcome::Deny(refused.reason);
        explanation.would_deny = None;
        explanation.status = refused.reason.status();
        explanation.detail = refused.detail.into_owned();
    }
}

fn request(text: &str) -> Result<(String, String), String> {
    let mut words = text.split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(method), Some(target), None) => Ok((method.to_owned(), target.to_owned())),
        _ => Err("expected a method and a path, for example 'GET /api/v1/schema'".to_owned()),
    }
}

fn host(text: &str) -> Result<Host, String> {
    Host::parse(text.as_bytes()).map_err(|refused| refused.detail.into_owned())
}

fn somebody(text: &str) -> Result<Somebody, String> {
    const FORM: &str = "expected `anonymous`, or a list such as `sub:alice,role:ROLE_USER,membership:oms=PREMIUM`";
    if text == "anonymous" {
        return Ok(Somebody::default());
    }
    // Somebody with a role is somebody, whatever the name.
    let mut who = Somebody { subject: Some("somebody".to_owned()), ..Somebody::default() };
    for part in text.split(',') {
        match part.split_once(':') {
            Some(("sub", id)) if !id.is_empty() => who.subject = Some(id.to_owned()),
            Some(("role", key)) => who.roles.push(RoleKey::parse(key).map_err(|error| error.to_string())?),
            Some(("membership", membership)) => {
                let (service, tier) = membership.split_once('=').ok_or(FORM)?;
                let service = ServiceName::parse(service).map_err(|error| error.to_string())?;
                let tier = TierKey::parse(tier).map_err(|error| error.to_string())?;
                who.memberships.push(Membership { service, tier });
            }
            _ => return Err(FORM.to_owned()),
        }
    }
    Ok(who)
}
