//! `doorward override`.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::change::{self, moment};
use super::{Context, Output};
use crate::admin_api::asked::Door;
use crate::rbac::{RoleKey, ServiceName, TierKey};

/// Set what a subject holds from now on, also for its tokens that are out already
///
/// Tokens that were issued before are judged by these roles and memberships and not by their claims; it is all that the subject holds,
/// so roles that are not named are taken. Tokens that are issued afterwards are judged by their own claims again. For whoever owns the
/// machine: like `doorward revoke`, it asks the running doorward over its control socket, or writes to `[revocation] folder`. The roles
/// must be those of the roles file in force.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  doorward override --subject alice --role ROLE_EDITOR\n  \
                  doorward override --subject alice --role ROLE_USER --role ROLE_EDITOR@8h --membership oms=PREMIUM@2027-01-31T00:00:00Z\n  \
                  doorward override --subject mallory --no-roles")]
pub(super) struct Args {
    /// The subject's id, prefix included
    #[arg(long, value_name = "ID")]
    subject: String,
    /// A role, perhaps until a time (Unix seconds, RFC 3339, or a duration from now on); may be given more than once
    #[arg(long = "role", value_name = "ROLE_KEY[@TIME]", value_parser = role, num_args = 1.., required_unless_present = "no_roles")]
    roles: Vec<Held>,
    /// The subject holds no role at all
    #[arg(long, conflicts_with = "roles")]
    no_roles: bool,
    /// A membership, perhaps until a time; may be given more than once
    #[arg(long = "membership", value_name = "SERVICE=TIER[@TIME]", value_parser = membership, num_args = 1..)]
    memberships: Vec<(String, Held)>,
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// A role or tier, perhaps for a time.
#[derive(Debug, Clone)]
struct Held {
    key: String,
    until: Option<i64>,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    let roles: Vec<Value> = args.roles.iter().map(|held| held.to_json("role")).collect();
    let mut body = json!({ "override": args.subject, "roles": roles });
    if !args.memberships.is_empty() {
        let mut memberships = Map::new();
        for (service, held) in &args.memberships {
            if memberships.insert(service.clone(), held.to_json("tier")).is_some() {
                anyhow::bail!("--membership names the service {service} twice, and a subject is in one tier of it");
            }
        }
        body["memberships"] = memberships.into();
    }
    change::carry_out(&settings, Door::Overrides, &body)?.tell(args.output, context)?;
    Ok(ExitCode::SUCCESS)
}

impl Held {
    fn parse(text: &str) -> Result<Self, String> {
        let (key, until) = match text.split_once('@') {
            Some((key, until)) => (key, Some(moment(until)?)),
            None => (text, None),
        };
        Ok(Self { key: key.to_owned(), until })
    }

    fn to_json(&self, name: &str) -> Value {
        match self.until {
            None => self.key.as_str().into(),
            Some(until) => json!({ name: self.key, "expires_at": until.max(0) }),
        }
    }
}

fn role(text: &str) -> Result<Held, String> {
    let held = Held::parse(text)?;
    RoleKey::parse(&held.key).map_err(|error| error.to_string())?;
    Ok(held)
}

fn membership(text: &str) -> Result<(String, Held), String> {
    let (service, tier) = text.split_once('=').ok_or("expected SERVICE=TIER, for example oms=PREMIUM")?;
    ServiceName::parse(service).map_err(|error| error.to_string())?;
    let held = Held::parse(tier)?;
    TierKey::parse(&held.key).map_err(|error| error.to_string())?;
    Ok((service.to_owned(), held))
}
