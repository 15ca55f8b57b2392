//! The tools of `policy`.
//!
//! Owns their arguments. Must never ask a node for what files can answer.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use cofferdam_model::Clock;

use super::{RecordArgs, check, diff, import, replay};
use crate::commands::Context;
use crate::failure::Failure;
use crate::remote::RemoteArgs;

/// What can be asked about policies without changing one.
#[derive(Debug, Subcommand)]
pub(crate) enum Tool {
    /// Check policy files as a node would, without one; exit code 8 when one would be refused
    Check {
        /// Files of Cedar text
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Id of the tenant they are for, where they name ids
        #[arg(long, value_name = "ID", default_value = "files")]
        tenant_id: String,
    },
    /// Run decision tables, without a node; exit code 8 when a row does not come out
    Test {
        /// Files of tables, as in policies/cases
        #[arg(required = true)]
        tables: Vec<PathBuf>,
        /// A file of policies that every row's tenant has; may be repeated
        #[arg(long = "policy", value_name = "FILE")]
        policies: Vec<PathBuf>,
    },
    /// Say what another set of policies would change, over generated calls and recorded ones
    Diff(DiffArgs),
    /// Decide recorded calls of a tenant again, by a candidate, and list every one that comes out differently
    Replay(ReplayArgs),
    /// Write a policy document of another system as Cedar, and name what has no counterpart
    Import(ImportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Name of the tenant whose policies on the node come first
    #[arg(long, conflicts_with = "before")]
    pub(super) tenant: Option<String>,
    /// A file of the first set; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(super) before: Vec<PathBuf>,
    /// A file of the second set; may be repeated. With --tenant it takes the place of the policy of its name
    #[arg(long, value_name = "FILE", required = true)]
    pub(super) after: Vec<PathBuf>,
    /// With --tenant: the files are all of the second set
    #[arg(long)]
    pub(super) whole: bool,
    /// With --tenant: ask about the tenant's recorded calls as well
    #[arg(long, requires = "tenant")]
    pub(super) recorded: bool,
    /// Calls that are generated, at most
    #[arg(long, value_name = "NUMBER", default_value_t = 20_000)]
    pub(super) generated: usize,
    /// End with exit code 8 where something is allowed that was not
    #[arg(long)]
    pub(super) deny_new_access: bool,
    #[command(flatten)]
    pub(super) records: RecordArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Name of the tenant
    pub(super) tenant: String,
    /// Files of the candidate; each takes the place of the policy of its name
    #[arg(required = true)]
    pub(super) files: Vec<PathBuf>,
    /// The files are all policies there shall be
    #[arg(long)]
    pub(super) whole: bool,
    /// End with exit code 8 where something is allowed that was not
    #[arg(long)]
    pub(super) deny_new_access: bool,
    #[command(flatten)]
    pub(super) records: RecordArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum System {
    /// A JSON policy document of AWS IAM
    Iam,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Of which system
    #[arg(long)]
    pub(super) from: System,
    /// The document; `-` for standard input
    pub(super) file: PathBuf,
    /// To whom it is attached: role:NAME, user:SUBJECT or account:NAME; not for documents that name principals
    #[arg(long = "for", value_name = "WHOM")]
    pub(super) attached: Option<String>,
    /// The AWS account this tenant stands for
    #[arg(long, default_value = "000000000000")]
    pub(super) account: String,
    /// The AWS region this node stands for
    #[arg(long, default_value = "local")]
    pub(super) region: String,
    /// End with exit code 8 where something has no counterpart
    #[arg(long)]
    pub(super) strict: bool,
}

/// Runs one.
pub(crate) fn run(tool: &Tool, remote: &RemoteArgs, context: &Context, clock: &dyn Clock) -> Result<(), Failure> {
    match tool {
        Tool::Check { files, tenant_id } => check::check(files, tenant_id, context),
        Tool::Test { tables, policies } => check::test(tables, policies, context),
        Tool::Diff(args) => diff::run(args, remote, context, clock),
        Tool::Replay(args) => replay::run(args, remote, context, clock),
        Tool::Import(args) => import::run(args, context),
    }
}
