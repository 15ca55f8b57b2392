//! The command line: what can be typed, and where it leads.
//!
//! Owns the list of commands and the options all of them share. Must never do the work of one.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use cofferdam_model::{OsRandom, SystemClock};
use serde_json::json;

use crate::commands::{self, Context};
use crate::demo::{self, DemoArgs};
use crate::failure::Failure;
use crate::layout::Layout;
use crate::output::Output;
use crate::serve::{self, ServeArgs};

const EXIT_CODES: &str = "\
Exit codes:
  0  it worked
  1  something that should not happen, or that the operating system refused
  2  the command line makes no sense
  3  a configuration or manifest is not valid, or the node refused what it was sent
  4  what was named is not there
  5  not allowed, or not known
  6  in the way of something that is there
  7  the network or the node failed
  8  a check found something (audit verify, doctor, policy check and test)
  9  the audit log takes no more records, so the node ended

Results go to standard output, everything else to standard error.";

/// Self-hosted serverless: every call authorized, jailed and recorded
#[derive(Debug, Parser)]
#[command(name = "cofferdam", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    /// Directory of a local node
    #[arg(long, global = true, env = "COFFERDAM_DATA", default_value = "cofferdam-data", value_name = "DIR")]
    data: PathBuf,
    /// Tell results and errors as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the directory of a new node
    Init(commands::init::InitArgs),
    /// Serve until told to stop
    Serve(ServeArgs),
    /// Start a node with two tenants, and print or take a tour of it
    Demo(DemoArgs),
    /// Bring a tenant to what a manifest says
    Apply(commands::apply::ApplyArgs),
    /// Call a function by name
    Invoke(commands::function::InvokeArgs),
    /// Show log lines of a function, and follow them
    Logs(commands::function::LogsArgs),
    /// Say what a tenant's functions used, hour by hour
    Usage(commands::usage::UsageArgs),
    /// Remove functions, and forget their old versions
    Function(commands::function::FunctionArgs),
    /// List and recycle the cells functions run in
    Cells(commands::cells::CellsArgs),
    /// Set, replace, list and remove the secrets of a function
    Secret(commands::secret::SecretArgs),
    /// See and replace the root key
    Vault(commands::vault::VaultArgs),
    /// Make, list and revoke keys of service accounts
    Key(commands::key::KeyArgs),
    /// Revoke tokens, keys, people and tenants at once; list and undo
    Revoke(commands::revoke::RevokeArgs),
    /// Make, list and show tenants, replace and destroy their keys
    Tenant(commands::access::TenantArgs),
    /// Give and take roles
    Member(commands::access::MemberArgs),
    /// Write, remove, check, compare and import policies
    Policy(commands::access::PolicyArgs),
    /// Organisations, whose ceilings bind their tenants
    Org(commands::organisation::OrganisationArgs),
    /// Add, change, list and remove users of the node's own issuer
    User(commands::user::UserArgs),
    /// Have the node's own issuer sign with a new key
    Issuer(commands::user::IssuerArgs),
    /// Get a token of the node's own issuer, for a passphrase or for a token that says more
    Login(commands::user::LoginArgs),
    /// Ask who may what, and what of it is used
    Authz(Box<commands::inquiry::authz::AuthzArgs>),
    /// Say what became of a call, and by which policies
    Why(commands::inquiry::why::WhyArgs),
    /// Make a token of the development issuer
    Token(commands::token::TokenArgs),
    /// Read and check the log
    Audit(commands::audit::AuditArgs),
    /// Show a node's counters, as Prometheus reads them
    Metrics(commands::cells::MetricsArgs),
    /// Say what this host can enforce, and whether the data directory is fit to serve from
    Doctor(commands::doctor::DoctorArgs),
    /// Print a completion script
    Completions {
        /// For which shell
        shell: Shell,
    },
    /// Print the version
    Version,
}

/// Runs what was typed; gives the exit code.
pub(crate) fn run(arguments: Vec<OsString>) -> u8 {
    // Asked before the line is understood, for it may not be.
    let json = arguments.iter().any(|argument| argument == "--json");
    let done = match Cli::try_parse_from(&arguments) {
        Ok(cli) => dispatch(cli),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Output { json: false }.bytes(error.to_string().as_bytes())
        }
        Err(error) if !json => {
            // Clap's own words: they show what was typed and what could have been.
            let _ = error.print();
            return Failure::usage("").exit_code();
        }
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Err(Failure::usage(first).hint("see `cofferdam --help`"))
        }
    };
    match done {
        Ok(()) => 0,
        Err(failure) => {
            let text = if json { failure.json().to_string() } else { failure.text() };
            use std::io::Write;
            // Nowhere is left to say that standard error is gone.
            let _ = writeln!(std::io::stderr(), "{text}");
            failure.exit_code()
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    let (clock, random) = (SystemClock::default(), OsRandom);
    let context = Context { layout: Layout::at(&cli.data), output: Output { json: cli.json } };
    match &cli.command {
        Command::Init(args) => commands::init::run(args, &context, &clock, &random),
        Command::Serve(args) => {
            log_to_stderr(cli.json);
            serve::run(args, &cli.data, cli.json)
        }
        Command::Demo(args) => demo::run(args),
        Command::Apply(args) => commands::apply::run(args, &context),
        Command::Invoke(args) => commands::function::invoke(args, &context),
        Command::Logs(args) => commands::function::logs(args, &context),
        Command::Usage(args) => commands::usage::run(args, &context, &clock),
        Command::Function(args) => commands::function::function(args, &context),
        Command::Cells(args) => commands::cells::cells(args, &context),
        Command::Secret(args) => commands::secret::run(args, &context),
        Command::Vault(args) => commands::vault::run(args, &context),
        Command::Key(args) => commands::key::run(args, &context),
        Command::Revoke(args) => commands::revoke::run(args, &context, &clock),
        Command::Tenant(args) => commands::access::tenant(args, &context),
        Command::Member(args) => commands::access::member(args, &context),
        Command::Policy(args) => commands::access::policy(args, &context, &clock),
        Command::Authz(args) => commands::inquiry::authz::run(args, &context, &clock),
        Command::Why(args) => commands::inquiry::why::run(args, &context, &clock),
        Command::Org(args) => commands::organisation::run(args, &context),
        Command::User(args) => commands::user::user(args, &context),
        Command::Issuer(args) => commands::user::issuer(args, &context),
        Command::Login(args) => commands::user::login(args, &context),
        Command::Token(args) => commands::token::run(args, &context, &clock, &random),
        Command::Audit(args) => commands::audit::run(args, &context),
        Command::Metrics(args) => commands::cells::metrics(args, &context),
        Command::Doctor(args) => commands::doctor::run(args, &context),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "cofferdam", &mut script);
            context.output.bytes(&script)
        }
        Command::Version => {
            let version = env!("CARGO_PKG_VERSION");
            context.output.result(&json!({ "version": version }), || vec![format!("cofferdam {version}")])
        }
    }
}

/// What a node has to say while it serves; how much, `COFFERDAM_LOG` tells.
fn log_to_stderr(json: bool) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("COFFERDAM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json { log.json().init() } else { log.init() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn shared_options_may_stand_anywhere() {
        for line in [
            "cofferdam --data d --json tenant create acme --url https://h",
            "cofferdam tenant create acme --url https://h --data d --json",
            "cofferdam tenant --url https://h create acme --json --data d",
        ] {
            let cli = parse(line).unwrap();
            assert!(cli.json && cli.data.as_os_str() == "d", "{line}");
        }
    }

    #[test]
    fn every_command_of_the_manual_is_understood() {
        let manual = [include_str!("../../docs/cli.md"), include_str!("../../docs/POLICY.md")].join("\n");
        let lines: Vec<_> = manual.lines().filter_map(|line| line.strip_prefix("    cofferdam ")).collect();
        assert!(lines.len() > 20, "only {} examples", lines.len());
        for line in lines {
            let typed = line.split(['<', '|', '>', '#']).next().unwrap_or_default();
            let parsed = parse(&format!("cofferdam {typed}"));
            assert!(parsed.is_ok(), "{line}\n{}", parsed.err().map(|e| e.to_string()).unwrap_or_default());
        }
    }

    #[test]
    fn exit_codes_of_help_and_manual_are_the_same() {
        let manual = include_str!("../../docs/cli.md");
        for line in EXIT_CODES.lines().filter(|line| line.starts_with("  ")) {
            let (code, meaning) = line.trim().split_once("  ").unwrap();
            assert!(manual.contains(&format!("| {code} | {meaning} |")), "{line}");
        }
    }

    #[test]
    fn secret_cannot_be_an_argument() {
        assert!(parse("cofferdam secret set acme/f NAME value").is_err());
        assert!(parse("cofferdam secret set acme/f NAME --value v").is_err());
    }
}
