//! `doorward token inspect`.

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::cli::{Context, FAILED, Output};
use crate::clock::Timestamp;
use crate::config::{ConfigError, issuers};
use crate::token::verify::MAX_TOKEN_BYTES;
use crate::token::{Verifier, mint};

/// Show what a token says, and whether the configured issuers accept it (exit 1 if not)
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  echo \"$TOKEN\" | doorward token inspect\n  doorward token inspect eyJ0eXAi… --output json | jq .verification"
)]
pub(in crate::cli) struct Args {
    /// The token; `-` or nothing reads it from the standard input, which keeps it out of the shell's history
    #[arg(default_value = "-")]
    token: String,
    /// How to write it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    let token = match args.token.as_str() {
        "-" => {
            let mut text = String::new();
            let most = MAX_TOKEN_BYTES as u64 + 1024;
            context
                .stdin
                .take(most)
                .read_to_string(&mut text)
                .context("cannot read the token from the standard input")?;
            text
        }
        token => token.to_owned(),
    };
    // People paste what they have: the whole header value is fine.
    let token = token.trim();
    let token = token.strip_prefix("Authorization:").map_or(token, str::trim);
    let token = token.strip_prefix("Bearer ").map_or(token, str::trim);
    if token.is_empty() {
        bail!("there is no token on the standard input");
    }
    let settings = context.settings()?;
    let issuers = issuers::load_existing(&settings.auth).map_err(ConfigError)?;
    let now = Timestamp::now();
    let verified = Verifier::new(issuers).verify(token, now);
    let verification = match &verified {
        Ok(claims) => json!({
            "accepted": true,
            "issuer": &*claims.issuer,
            "subject": &*claims.subject,
            "roles": claims.roles.iter().map(|role| role.as_str()).collect::<Vec<_>>(),
        }),
        Err(rejection) => {
            json!({ "accepted": false, "reason": rejection.reason.code(), "detail": rejection.detail })
        }
    };
    let said = mint::inspect(token, now);
    match args.output {
        Output::Json => {
            let mut report = said.unwrap_or_else(|_| json!({}));
            report["verification"] = verification;
            context.json(&report)?;
        }
        Output::Text => {
            if let Ok(said) = said {
                context.json(&said)?;
            }
            match &verified {
                Ok(claims) => writeln!(
                    context.out,
                    "accepted: issuer {}, subject {}, roles {}",
                    claims.issuer,
                    claims.subject,
                    if claims.roles.is_empty() {
                        "none".to_owned()
                    } else {
                        claims.roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
                    }
                )?,
                Err(rejection) => writeln!(context.out, "refused: {}: {}", rejection.reason, rejection.detail)?,
            }
        }
    }
    Ok(if verified.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}
