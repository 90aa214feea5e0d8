//! `doorward token inspect`.

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::cli::verifying::verify;
use crate::cli::{Context, FAILED, Output};
use crate::clock::Timestamp;
use crate::token::mint;
use crate::token::verify::MAX_TOKEN_BYTES;

/// Show what a token says, and whether the configured issuers accept it (exit 1 if not)
///
/// Keys behind a URL are fetched for it, once. Whether the token has been revoked is not looked at.
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

/// Keys and times say all else; this only a running process knows.
const NOT_LOOKED_AT: &str =
    "not looked at: whether it has been revoked; a running doorward says so at GET /api/revocations?jti=…";

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
    let verified = verify(&settings, token)?;
    let verification = match &verified {
        Ok(claims) => json!({
            "accepted": true,
            "issuer": &*claims.issuer,
            "subject": &*claims.subject,
            "roles": claims.roles.iter().map(crate::rbac::RoleKey::as_str).collect::<Vec<_>>(),
            "revocations_checked": false,
        }),
        Err(rejection) => {
            json!({ "accepted": false, "reason": rejection.reason.code(), "detail": rejection.detail })
        }
    };
    let said = mint::inspect(token, Timestamp::now());
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
                    "accepted: issuer {}, subject {}, roles {}\n{NOT_LOOKED_AT}",
                    claims.issuer,
                    claims.subject,
                    if claims.roles.is_empty() {
                        "none".to_owned()
                    } else {
                        claims.roles.iter().map(crate::rbac::RoleKey::as_str).collect::<Vec<_>>().join(", ")
                    }
                )?,
                Err(rejection) => writeln!(context.out, "refused: {}: {}", rejection.reason, rejection.detail)?,
            }
        }
    }
    Ok(if verified.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}
