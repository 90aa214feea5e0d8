//! `doorward revoke`.

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::change::{self, moment};
use super::{Context, FAILED, Output};
use crate::admin_api::asked::Door;
use crate::token::verify::MAX_TOKEN_BYTES;

/// Shut out a token, a session, a subject or a key, on every gateway
///
/// Asks the doorward that runs with this configuration, over its control socket (`[admin] socket`); where none runs, it is written to
/// `[revocation] folder`, which every process that shares it follows. Exit 0 once it is on disk, with a warning if it is not published
/// yet; 1 if nothing was changed. Repeating it is harmless.
#[derive(Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("what").required(true).multiple(false)),
    after_help = "Example:\n  doorward revoke --session s-1\n  doorward revoke --subject kc:alice --output json\n  \
                  doorward revoke --token-stdin < leaked.jwt\n  doorward revoke --jti 0193… --issuer keycloak --expires-at 2027-01-31T12:00:00Z"
)]
pub(super) struct Args {
    /// One token, by its `jti`
    #[arg(long, value_name = "ID", group = "what")]
    jti: Option<String>,
    /// One token, read from the standard input; its signature must be good
    #[arg(long, group = "what")]
    token_stdin: bool,
    /// One session, by the `sid` of its tokens: it is ended
    #[arg(long, value_name = "ID", group = "what")]
    session: Option<String>,
    /// All tokens that a subject has been issued until now: log out everywhere
    #[arg(long, value_name = "ID", group = "what")]
    subject: Option<String>,
    /// All tokens that anybody has been issued until now, where this service is asked for
    #[arg(long, value_name = "NAME", group = "what")]
    service: Option<String>,
    /// All tokens that anybody has been issued until now
    #[arg(long, group = "what")]
    everything: bool,
    /// All tokens that were or will be signed by this key, for good
    #[arg(long, value_name = "KID", group = "what")]
    key: Option<String>,
    /// Refuse a subject, whatever it presents, until it is enabled again
    #[arg(long, value_name = "SUBJECT", group = "what")]
    disable: Option<String>,
    /// Let a subject in again that was disabled; earlier tokens stay refused
    #[arg(long, value_name = "SUBJECT", group = "what")]
    enable: Option<String>,
    /// The issuer's name in the configuration, for --jti and --key; default: every issuer
    #[arg(long, value_name = "NAME", conflicts_with_all = ["token_stdin", "session", "subject", "service", "everything", "disable", "enable"])]
    issuer: Option<String>,
    /// When the token, or the last of the session, expires, for --jti and --session; default: as late as any token can
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with_all = ["token_stdin", "subject", "service", "everything", "key", "disable", "enable"])]
    expires_at: Option<i64>,
    /// Do not ask whether --everything is meant
    #[arg(long)]
    yes: bool,
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    let body = body(args, context)?;
    if args.everything && !args.yes && std::io::stdin().is_terminal() && !confirmed(context)? {
        writeln!(context.err, "nothing was changed")?;
        return Ok(ExitCode::from(FAILED));
    }
    change::carry_out(&settings, Door::Revocations, &body)?.tell(args.output, context)?;
    Ok(ExitCode::SUCCESS)
}

/// The call's body; clap has seen to it that exactly one of them is there.
fn body(args: &Args, context: &mut Context<'_>) -> anyhow::Result<Value> {
    let named = [
        ("jti", &args.jti),
        ("session", &args.session),
        ("subject", &args.subject),
        ("service", &args.service),
        ("key", &args.key),
        ("disabled", &args.disable),
        ("enabled", &args.enable),
    ];
    let mut body = match named.into_iter().find_map(|(name, value)| Some((name, value.as_ref()?))) {
        Some((name, value)) => Value::Object([(name.to_owned(), value.as_str().into())].into_iter().collect()),
        None if args.everything => json!({ "everything": true }),
        None => json!({ "token": token(context)? }),
    };
    if let Some(issuer) = &args.issuer {
        body["issuer"] = issuer.as_str().into();
    }
    if let Some(at) = args.expires_at {
        body["expires_at"] = at.max(0).into();
    }
    Ok(body)
}

/// People paste what they have: the whole header value is fine.
fn token(context: &mut Context<'_>) -> anyhow::Result<String> {
    let mut text = String::new();
    let most = MAX_TOKEN_BYTES as u64 + 1024;
    context.stdin.take(most).read_to_string(&mut text).context("cannot read the token from the standard input")?;
    let token = text.trim();
    let token = token.strip_prefix("Authorization:").map_or(token, str::trim);
    let token = token.strip_prefix("Bearer ").map_or(token, str::trim);
    if token.is_empty() {
        bail!("there is no token on the standard input");
    }
    Ok(token.to_owned())
}

fn confirmed(context: &mut Context<'_>) -> anyhow::Result<bool> {
    write!(context.err, "This logs everybody out, of every service, at once. Type yes to go on: ")?;
    context.err.flush()?;
    let mut said = [0; 16];
    let read = context.stdin.read(&mut said)?;
    Ok(said.get(..read).unwrap_or_default().trim_ascii().eq_ignore_ascii_case(b"yes"))
}
