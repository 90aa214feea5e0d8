//! `doorward keys …`: doorward's own signing keys.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::{Context, FAILED, Output};
use crate::app;
use crate::clock::Timestamp;
use crate::config::{AuthSettings, IssuerSettings, KeySource, Settings, quantity};
use crate::token::local_keys::{self, RotateError, Rotation};
use crate::token::{Algorithm, Key, KeySet};

#[derive(Debug, clap::Subcommand)]
#[command(after_help = "Example:\n  doorward keys rotate\n  doorward keys list --output json | jq .jwks")]
pub(super) enum Command {
    /// Make the next key: it is published at once, signs after the overlap, and the old one verifies until its tokens are dead
    ///
    /// Running processes follow the key file and need no restart. If a key has leaked: `doorward revoke --key KID`, then
    /// `doorward keys rotate --now`.
    Rotate(Rotate),
    /// Show the keys: which one signs, which one is next, which ones only verify
    List(List),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  doorward keys rotate\n  doorward revoke --key KID && doorward keys rotate --now")]
pub(super) struct Rotate {
    /// The new key signs at once. Who has fetched the old set refuses its tokens until it fetches again
    #[arg(long, conflicts_with = "overlap")]
    now: bool,
    /// How long the new key is published before it signs: longer than anybody keeps the set that was fetched before
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = overlap)]
    overlap: Duration,
    /// The new key's algorithm, one of the issuer's; default: the first of them
    #[arg(long, value_name = "ALG", value_parser = algorithm)]
    algorithm: Option<Algorithm>,
    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  doorward keys list\n  doorward keys list --output json | jq .jwks")]
pub(super) struct List {
    /// How the result is written; JSON holds the public key set, and what followers pin, too
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(command: Command, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    match command {
        Command::Rotate(args) => rotate(&args, &settings, context),
        Command::List(args) => list(&args, &settings, context),
    }
}

/// The issuer that is doorward itself.
fn own(auth: &AuthSettings) -> anyhow::Result<&IssuerSettings> {
    if let Some(own) = auth.issuers.iter().find(|issuer| issuer.keys == KeySource::Local) {
        return Ok(own);
    }
    if auth.issuers.iter().any(|issuer| matches!(issuer.keys, KeySource::Secret(_))) {
        bail!(
            "no issuer has keys = \"local\", and a shared secret has no next one: set another JWT_SECRET_KEY wherever it is known"
        );
    }
    bail!("no issuer has keys = \"local\", so doorward signs nothing here; others rotate their own keys")
}

fn rotate(args: &Rotate, settings: &Settings, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    let auth = &settings.auth;
    let issuer = own(auth)?;
    let algorithm = args.algorithm.or_else(|| issuer.algorithms.first().copied()).unwrap_or(Algorithm::EdDSA);
    if !issuer.algorithms.contains(&algorithm) {
        bail!("{} is not one of the issuer's `algorithms`; add it there first, everywhere", algorithm.name());
    }
    let tokens_live = issuer.max_lifetime + auth.leeway;
    let rotation = Rotation { algorithm, overlap: (!args.now).then_some(args.overlap), tokens_live };
    let path = &auth.local_keys;
    if settings.follows() && !path.exists() {
        bail!(super::FOLLOWS);
    }
    app::refuse_another_owner(path)?;
    let rotated = match local_keys::rotate(path, &issuer.algorithms, rotation, Timestamp::now()) {
        Ok(rotated) => rotated,
        Err(waits @ RotateError::Waits { .. }) => {
            writeln!(context.err, "{waits}")?;
            return Ok(ExitCode::from(FAILED));
        }
        Err(error) => return Err(error.into()),
    };
    match args.output {
        Output::Json => context.json(&json!({
            "kid": rotated.key_id,
            "algorithm": algorithm.name(),
            "signs_from": rotated.signs_from.0,
            "old_until": rotated.old_until.0,
        }))?,
        Output::Text => {
            writeln!(context.out, "{}", rotated.key_id)?;
            writeln!(
                context.err,
                "the new key signs from {}, and tokens of the old one are accepted until {}",
                shown(rotated.signs_from),
                shown(rotated.old_until)
            )?;
            if args.now {
                writeln!(context.err, "if the old key has leaked, revoke it: doorward revoke --key KID")?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(args: &List, settings: &Settings, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    let pinned = publication_keys(settings)?;
    let set = match own(&settings.auth) {
        // Who signs no tokens may still publish changes, and followers have to pin its key.
        Err(none) if pinned.is_empty() => {
            return Err(none
                .context("there are no keys to show; `doorward run` makes the publication key, which followers pin"));
        }
        Err(_) => None,
        Ok(issuer) => {
            let path = &settings.auth.local_keys;
            if !path.exists() && settings.follows() {
                bail!("this configuration only follows and has no keys of its own; ask the control plane");
            }
            if !path.exists() {
                bail!("{} does not exist yet: `doorward run` and `doorward keys rotate` make it", path.display());
            }
            Some(local_keys::read(path).and_then(|document| local_keys::parse(path, &document, &issuer.algorithms))?)
        }
    };
    let now = Timestamp::now();
    let rows: Vec<_> = set.iter().flat_map(|set| set.keys.iter().map(move |key| (key, state(set, key, now)))).collect();
    match args.output {
        Output::Json => {
            let keys: Vec<Value> = rows.iter().map(|(key, state)| row(key, state)).collect();
            context.json(&json!({
                "keys": keys,
                "jwks": set.map_or_else(|| json!({ "keys": [] }), |set| set.public_jwks_at(now)),
                "publication": { "public_keys": pinned },
            }))?;
        }
        Output::Text => {
            let columns = |key: &str, algorithm: &str, state: &str, since: &str, until: &str| {
                format!("{key:<44} {algorithm:<6} {state:<9} {since:<21} {until}").trim_end().to_owned()
            };
            writeln!(context.out, "{}", columns("KID", "ALG", "STATE", "SIGNS FROM", "VERIFIES UNTIL"))?;
            for (key, state) in rows {
                let id = key.id.as_deref().unwrap_or("-");
                let [since, until] = [key.life.signs_from, key.life.verifies_until]
                    .map(|time| time.map_or_else(|| "-".to_owned(), shown));
                writeln!(context.out, "{}", columns(id, key.algorithm.name(), state, &since, &until))?;
            }
            for key in pinned {
                writeln!(context.out, "[publication] public_keys of followers: {key}")?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What followers of this configuration pin. Only looked at: a publisher makes its key when it starts.
fn publication_keys(settings: &Settings) -> anyhow::Result<Vec<String>> {
    let file = settings.publication.key_file.as_deref().filter(|file| file.exists());
    let published = file.map(local_keys::load_or_create_publication).transpose()?;
    Ok(published.map_or_else(|| settings.publication.public_keys.clone(), |file| file.public))
}

fn row(key: &Key, state: &str) -> Value {
    let mut row = Map::new();
    row.insert("kid".into(), key.id.as_deref().into());
    row.insert("algorithm".into(), key.algorithm.name().into());
    row.insert("state".into(), state.into());
    row.insert("since".into(), key.life.signs_from.map(|time| time.0).into());
    row.insert("until".into(), key.life.verifies_until.map(|time| time.0).into());
    Value::Object(row)
}

fn state(set: &KeySet, key: &Key, now: Timestamp) -> &'static str {
    let signs = set.signing_key_at(now).is_some_and(|signing| std::ptr::eq(signing, key));
    match () {
        () if key.life.revoked => "revoked",
        () if !key.is_good(now) => "expired",
        () if key.life.signs_from.is_some_and(|from| from > now) => "next",
        () if signs => "signing",
        () => "retiring",
    }
}

fn shown(time: Timestamp) -> String {
    jiff::Timestamp::from_second(time.0).map_or_else(|_| time.0.to_string(), |time| time.to_string())
}

fn overlap(text: &str) -> Result<Duration, String> {
    let most = Duration::from_hours(30 * 24);
    let overlap = quantity::duration(text).filter(|overlap| (Duration::from_secs(1)..=most).contains(overlap));
    overlap.ok_or_else(|| format!("expected {}, from 1 s to 30 days", quantity::DURATION))
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    Algorithm::from_name(text)
        .filter(|algorithm| *algorithm != Algorithm::HS256)
        .with_context(|| "expected EdDSA, ES256 or RS256".to_owned())
        .map_err(|error| error.to_string())
}
