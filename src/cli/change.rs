//! Carrying a change out: over the control socket of the doorward that runs with the same configuration, or, where none runs, on the
//! truth itself.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use jiff::Timestamp as Moment;
use serde_json::{Value, json};

use super::running::{Answer, Control};
use super::{Context, Output};
use crate::admin_api::asked::{self, Door, Known};
use crate::app::{self, Alone};
use crate::clock::Timestamp;
use crate::config::{self, ConfigError, Settings, issuers, quantity};
use crate::policy::roles_file;
use crate::revocation::{Entry, FloorOf};
use crate::token::Verifier;

/// What came of it.
pub(super) struct Done {
    /// What was changed.
    entry: Entry,
    /// The change's number.
    number: u64,
    /// Whether every process has it, or has it within a second.
    propagated: bool,
    /// Why not, as far as the process that did it says.
    detail: Option<String>,
    /// What came of it where no process did it.
    alone: Option<Alone>,
}

/// Asks the running process, or does it here.
///
/// # Errors
/// What was refused and why: nothing was changed then.
pub(super) fn carry_out(settings: &Settings, door: Door, body: &Value) -> anyhow::Result<Done> {
    let path = match door {
        Door::Revocations => "/api/revocations",
        Door::Overrides => "/api/overrides",
    };
    let answered = match Control::of(settings)? {
        Some(control) => control.post(path, body.to_string())?,
        None => None,
    };
    match answered {
        Some(answer) => read(&answer, body),
        None => directly(settings, door, body),
    }
}

fn read(answer: &Answer, body: &Value) -> anyhow::Result<Done> {
    let said: Value = serde_json::from_str(&answer.text)
        .with_context(|| format!("the running doorward answered {} {:?}", answer.status.as_u16(), answer.text))?;
    if !answer.status.is_success() {
        bail!("{}", said["detail"].as_str().unwrap_or(&answer.text));
    }
    let entry = if said["entry"].is_object() { &said["entry"] } else { body };
    Ok(Done {
        entry: serde_json::from_value(entry.clone())?,
        number: said["number"].as_u64().unwrap_or_default(),
        propagated: said["propagated"] == true,
        detail: said["detail"].as_str().map(str::to_owned),
        alone: None,
    })
}

/// No process has the socket: the folder is written here, beside whoever else writes it.
fn directly(settings: &Settings, door: Door, body: &Value) -> anyhow::Result<Done> {
    let entry = check(settings, door, body)?;
    let (before, last) = asked::steps(entry.clone());
    let alone = app::record(settings, before.into_iter().chain([last]))?;
    Ok(Done { entry, number: alone.number, propagated: alone.outstanding.is_none(), detail: None, alone: Some(alone) })
}

/// The same checks that a running process makes.
fn check(settings: &Settings, door: Door, body: &Value) -> anyhow::Result<Entry> {
    let verifier = Verifier::new(issuers::load_accepted(&settings.auth).map_err(ConfigError)?);
    if let Some(token) = body["token"].as_str() {
        app::fetch_keys(&settings.auth, &verifier, token.trim())?;
    }
    let names = app::issuer_names(settings);
    let file = settings.roles.as_deref().context("[roles] file is missing")?;
    let source = config::read(file).map_err(|failure| anyhow::anyhow!("{}", failure.error))?;
    let (parsed, found) = roles_file::parse(Arc::clone(&source));
    let Some((_, roles)) = parsed.filter(|_| !found.has_errors()) else {
        bail!("{}", found.render(false).trim_end());
    };
    let known = Known { verifier: &verifier, issuers: &names, roles: &roles, now: Timestamp::now() };
    Ok(asked::read(body.to_string().as_bytes(), door, &known)?.entry)
}

impl Done {
    /// Tells what was done: the result on the output, what is still outstanding as a warning.
    pub(super) fn tell(&self, output: Output, context: &mut Context<'_>) -> anyhow::Result<()> {
        match output {
            Output::Json => context.json(&json!({
                "propagated": self.propagated,
                "number": self.number,
                "entry": self.entry,
                "by": if self.alone.is_none() { "process" } else { "folder" },
            }))?,
            Output::Text => writeln!(context.out, "{} (change {})", describe(&self.entry), self.number)?,
        }
        if let Some(Alone { folder, is_new, .. }) = &self.alone {
            let folder = folder.display();
            writeln!(
                context.err,
                "no doorward has the control socket here, so {folder} was written; who shares it follows within 1 s"
            )?;
            if *is_new {
                writeln!(
                    context.err,
                    "warning: nothing was ever recorded there before; is this your doorward's working directory?"
                )?;
            }
        }
        if !self.propagated {
            let (why, who) = match &self.alone {
                None => (self.detail.as_deref(), "the running doorward".to_owned()),
                Some(alone) => {
                    (alone.outstanding.as_deref(), format!("a doorward that has {}", alone.folder.display()))
                }
            };
            writeln!(
                context.err,
                "warning: not published yet ({}); it is on disk, and {who} publishes it as soon as it can",
                why.unwrap_or("Redis has not taken it")
            )?;
        }
        Ok(())
    }
}

/// What a change did, for people.
fn describe(entry: &Entry) -> String {
    let of = |issuer: &Option<Box<str>>| issuer.as_deref().map(|name| format!(" of issuer {name}")).unwrap_or_default();
    match entry {
        Entry::Token { id, issuer, .. } => format!("revoked the token {id}{}", of(issuer)),
        Entry::Session { id, .. } => format!("ended the session {id}"),
        Entry::Floor { of, .. } => match of {
            FloorOf::Everything => "logged everybody out".to_owned(),
            FloorOf::Service(name) => format!("logged everybody out of the service {name}"),
            FloorOf::Subject(id) => format!("logged {id} out everywhere"),
            FloorOf::Session(id) => format!("refused what the session {id} has been issued until now"),
        },
        Entry::Key { id, issuer } => format!("revoked the signing key {id}{}, for good", of(issuer)),
        Entry::Disabled { id } => format!("disabled {id}"),
        Entry::Enabled { id } => format!("enabled {id}; earlier tokens stay refused"),
        Entry::Override(held) => {
            let roles: Vec<String> = held.roles.iter().map(|held| held.role.to_string()).collect();
            let roles = if roles.is_empty() { "no roles".to_owned() } else { roles.join(", ") };
            format!("{} holds {roles} from now on", held.subject)
        }
        Entry::Keys { .. } => "published the signing keys".to_owned(),
        Entry::RoleData { .. } => "announced the role data".to_owned(),
    }
}

/// A moment as Unix seconds: written so, as RFC 3339, or as a duration from now on.
pub(super) fn moment(text: &str) -> Result<i64, String> {
    let expected = || {
        format!("expected Unix seconds, a time such as 2027-01-31T12:00:00Z, or {}, from now on", quantity::DURATION)
    };
    if let Some(from_now) = quantity::duration(text) {
        return i64::try_from(from_now.as_secs())
            .map(|seconds| Timestamp::now().plus(seconds).0)
            .map_err(|_| expected());
    }
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(seconds.into());
    }
    text.parse::<Moment>().map(Moment::as_second).map_err(|_| expected())
}
