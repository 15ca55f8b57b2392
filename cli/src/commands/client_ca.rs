//! `tenant ca`: the authorities that name a tenant's machines by certificates.
//!
//! Owns how one is put together from files and arguments. Must never judge a certificate: the node does.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use cofferdam_model::machine::{CERTIFICATES_BYTES, CRLS_BYTES};
use cofferdam_model::{ClientAccount, ClientCa};
use http::Method;
use serde_json::{Value, json};

use super::access::rows;
use super::{Context, input, tenant_path};
use crate::failure::{Failure, Kind};
use crate::output::{items, text};
use crate::remote::{Remote, segment};

#[derive(Debug, Subcommand)]
pub(crate) enum Ca {
    /// Trust an authority to name machines, or replace all that is known of it; in force with the next call
    Set {
        /// Name of the tenant
        tenant: String,
        /// Name of the authority
        name: String,
        /// PEM file of its certificates
        #[arg(long, value_name = "FILE")]
        certificates: PathBuf,
        /// PEM file of a list of certificates it revoked; may be repeated
        #[arg(long = "crl", value_name = "FILE")]
        crls: Vec<PathBuf>,
        /// A machine and what it is: SPIFFE ID or subject, `=>`, account, `:`, roles; may be repeated
        #[arg(long = "account", value_name = "MACHINE=>ACCOUNT:ROLE,..", value_parser = account)]
        accounts: Vec<ClientAccount>,
        /// Take no call without a certificate at the tenant's hosts
        #[arg(long)]
        required: bool,
    },
    /// List the authorities of a tenant
    List {
        /// Name of the tenant
        tenant: String,
    },
    /// Trust an authority no more
    Rm {
        /// Name of the tenant
        tenant: String,
        /// Name of the authority
        name: String,
    },
}

/// Reads `spiffe://acme.example/pay=>pay:invoker,viewer`. Subjects have `=` and `:` of their own, so they stand first.
fn account(argument: &str) -> Result<ClientAccount, String> {
    let parts = argument.rsplit_once("=>").and_then(|(machine, rest)| Some((machine, rest.split_once(':')?)));
    match parts {
        Some((machine, (account, roles))) if ![machine, account, roles].contains(&"") => Ok(ClientAccount {
            machine: machine.to_owned(),
            account: account.to_owned(),
            roles: roles.split(',').map(str::to_owned).collect(),
        }),
        _ => Err("write it as `spiffe://acme.example/pay=>pay:invoker`".to_owned()),
    }
}

/// Runs `cofferdam tenant ca`.
pub(crate) fn run(remote: &Remote, what: &Ca, context: &Context) -> Result<(), Failure> {
    let path = |tenant: &str, name: &str| format!("{}/client-cas/{}", tenant_path(tenant), segment(name));
    match what {
        Ca::Set { tenant, name, certificates, crls, accounts, required } => {
            let crls = crls.iter().map(|file| pem(file, CRLS_BYTES)).collect::<Result<Vec<_>, _>>()?;
            let ca = ClientCa {
                certificates: pem(certificates, CERTIFICATES_BYTES)?,
                crls: crls.join("\n"),
                required: *required,
                accounts: accounts.clone(),
            };
            let put = remote.call(Method::PUT, &path(tenant, name), Some(&json!(ca)))?;
            context.output.result(&put, || vec![format!("{tenant} trusts {name} from the next call on")])
        }
        Ca::List { tenant } => {
            let listed = remote.call(Method::GET, &format!("{}/client-cas", tenant_path(tenant)), None)?;
            context.output.result(&listed, || show(&listed))
        }
        Ca::Rm { tenant, name } => {
            let removed = remote.call(Method::DELETE, &path(tenant, name), None)?;
            context.output.result(&removed, || vec![format!("{tenant} trusts {name} no more")])
        }
    }
}

fn pem(file: &Path, most: usize) -> Result<String, Failure> {
    let bytes = input(Some(file), most)?;
    String::from_utf8(bytes.to_vec())
        .map_err(|_| Failure::new(Kind::Invalid, format!("`{}` is not PEM: it is no text", file.display())))
}

fn show(listed: &Value) -> Vec<String> {
    let cas = items(listed, "authorities");
    let mut lines = rows(&["name", "required", "crl_bytes", "updated"], cas);
    for ca in cas {
        for one in items(ca, "accounts") {
            let (machine, account, roles) = (text(one, "machine"), text(one, "account"), text(one, "roles"));
            lines.push(format!("  {}: {machine} is {account} ({roles})", text(ca, "name")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_and_account_are_told_apart_whatever_the_machine_is_called() {
        let one = account("CN=a:b=c,O=Acme=>pay:invoker,viewer").unwrap();
        assert_eq!((one.machine.as_str(), one.account.as_str()), ("CN=a:b=c,O=Acme", "pay"));
        assert_eq!(one.roles, ["invoker", "viewer"]);
        for text in ["", "spiffe://a", "spiffe://a=>pay", "=>pay:x", "spiffe://a=>:x", "spiffe://a=>pay:"] {
            assert!(account(text).is_err(), "{text}");
        }
    }
}
