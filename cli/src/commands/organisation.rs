//! `org`: organisations, which bind the policies of their tenants from above.
//!
//! Owns their arguments and how answers are shown. Must never hold a rule of its own.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;

use super::access::rows;
use super::{Context, tenant_path};
use crate::failure::Failure;
use crate::output::{items, text};
use crate::remote::RemoteArgs;

/// Arguments of `cofferdam org`.
#[derive(Debug, Args)]
pub(crate) struct OrganisationArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    what: Organisation,
}

#[derive(Debug, Subcommand)]
enum Organisation {
    /// Make an organisation
    Create {
        /// Its name
        name: String,
    },
    /// List organisations with their tenants; `--json` shows the texts of their ceilings too
    List,
    /// Put a tenant into an organisation, under its ceiling
    Assign {
        /// Name of the organisation
        name: String,
        /// Name of the tenant
        tenant: String,
    },
    /// Take a tenant out of its organisation
    Release {
        /// Name of the tenant
        tenant: String,
    },
}

/// Runs `cofferdam org`.
pub(crate) fn run(args: &OrganisationArgs, context: &Context) -> Result<(), Failure> {
    let remote = args.remote.open(&context.layout)?;
    let assign = |tenant: &str, to: Option<&str>| {
        let path = format!("{}/organisation", tenant_path(tenant));
        remote.call(Method::PUT, &path, Some(&json!({ "organisation": to })))
    };
    match &args.what {
        Organisation::Create { name } => {
            let made = remote.call(Method::POST, "/-/v1/organisations", Some(&json!({ "name": name })))?;
            context.output.result(&made, || vec![format!("organisation {name} is {}", text(&made, "id"))])
        }
        Organisation::List => {
            let listed = remote.call(Method::GET, "/-/v1/organisations", None)?;
            context
                .output
                .result(&listed, || rows(&["name", "id", "tenants", "created"], items(&listed, "organisations")))
        }
        Organisation::Assign { name, tenant } => {
            let assigned = assign(tenant, Some(name))?;
            context.output.result(&assigned, || vec![format!("{tenant} is under the ceiling of {name}")])
        }
        Organisation::Release { tenant } => {
            let released = assign(tenant, None)?;
            context.output.result(&released, || vec![format!("{tenant} is in no organisation")])
        }
    }
}
