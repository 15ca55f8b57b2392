//! `authz`: who may what, and who uses it.
//!
//! Owns the list of its commands. Must never show more than the one who asks may read.

use clap::{Args, Subcommand};
use cofferdam_model::Clock;

use super::grants::{self, ReportArgs};
use super::simulate::{self, SimulateArgs, WhoCanArgs};
use crate::commands::Context;
use crate::failure::Failure;
use crate::remote::RemoteArgs;

/// Arguments of `cofferdam authz`.
#[derive(Debug, Args)]
pub(crate) struct AuthzArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    what: Authz,
}

#[derive(Debug, Subcommand)]
enum Authz {
    /// Say what would come of a call nobody made: of each tier, by which policies, and what was nearest to a yes
    Simulate(SimulateArgs),
    /// List who may do something: members, accounts of keys, callers without a credential, and roles
    WhoCan(WhoCanArgs),
    /// List permits and callers' rights that nobody used
    Unused(ReportArgs),
    /// Propose policies that grant what was used and no more
    LeastPrivilege {
        #[command(flatten)]
        report: ReportArgs,
        /// For each role instead of each caller
        #[arg(long)]
        by_role: bool,
    },
}

/// Runs `cofferdam authz`.
pub(crate) fn run(args: &AuthzArgs, context: &Context, clock: &dyn Clock) -> Result<(), Failure> {
    match &args.what {
        Authz::Simulate(asked) => simulate::simulate(asked, &args.remote, context, clock),
        Authz::WhoCan(asked) => simulate::who_can(asked, &args.remote, context),
        Authz::Unused(asked) => grants::unused(asked, &args.remote, context, clock),
        Authz::LeastPrivilege { report, by_role } => {
            grants::least_privilege((report, *by_role), &args.remote, context, clock)
        }
    }
}
