//! `doorward config`.

use std::process::ExitCode;

use super::{Context, Output};

/// Print the configuration in force: the file, the environment over it, built-in defaults below; secrets masked
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  doorward config --config config/doorward.toml\n  doorward config --output json | jq .gateway.listen"
)]
pub(super) struct Args {
    /// How to write it: TOML that can be read again, or JSON
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    match args.output {
        Output::Json => context.json(&settings.to_table())?,
        Output::Text => {
            let source = settings.source.as_ref().map(|file| file.display().to_string());
            writeln!(context.out, "# from {}", source.as_deref().unwrap_or("built-in defaults; there is no file"))?;
            write!(context.out, "{}", settings.show())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
