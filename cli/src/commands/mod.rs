//! The commands, each a short way from arguments to a result.
//!
//! Owns what several of them share. Must never decide what the server decides.

pub(crate) mod access;
pub(crate) mod apply;
pub(crate) mod audit;
pub(crate) mod cells;
pub(crate) mod client_ca;
pub(crate) mod doctor;
pub(crate) mod evidence;
pub(crate) mod function;
pub(crate) mod init;
pub(crate) mod inquiry;
pub(crate) mod keep;
pub(crate) mod key;
pub(crate) mod organisation;
pub(crate) mod revoke;
pub(crate) mod secret;
pub(crate) mod sinks;
pub(crate) mod token;
pub(crate) mod usage;
pub(crate) mod user;
pub(crate) mod vault;

use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use cofferdam_model::id::is_name;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::layout::Layout;
use crate::output::Output;
use crate::remote::segment;

/// What every command is told.
pub(crate) struct Context {
    pub(crate) layout: Layout,
    pub(crate) output: Output,
}

/// A function as `tenant/function`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FunctionName {
    pub(crate) tenant: String,
    pub(crate) function: String,
}

impl FromStr for FunctionName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((tenant, function)) if is_name(tenant) && is_name(function) => {
                Ok(Self { tenant: tenant.to_owned(), function: function.to_owned() })
            }
            _ => Err("write it as `tenant/function`".to_owned()),
        }
    }
}

impl FunctionName {
    /// Where the management API has it.
    pub(crate) fn path(&self) -> String {
        format!("/-/v1/tenants/{}/functions/{}", self.tenant, self.function)
    }
}

/// Where the management API has a tenant.
pub(crate) fn tenant_path(tenant: &str) -> String {
    format!("/-/v1/tenants/{}", segment(tenant))
}

/// Reads a file, or standard input where none is named, up to a size.
pub(crate) fn input(file: Option<&Path>, most: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    // Room for all of it from the start: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
    let limit = most as u64 + 1;
    match file {
        Some(path) => {
            let failed = |error: std::io::Error| Failure::file("read", path, &error);
            std::fs::File::open(path).map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
        }
        None => {
            let failed = |error| Failure::internal(format!("cannot read standard input: {error}"));
            std::io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(failed)?;
        }
    }
    if bytes.len() > most {
        return Err(Failure::usage(format!("the input is larger than {most} bytes")));
    }
    Ok(bytes)
}

/// A duration such as `1h`, in seconds. For arguments.
pub(crate) fn duration(text: &str) -> Result<u64, String> {
    crate::manifest::units::seconds(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn function_is_named_with_its_tenant() {
        let name: FunctionName = "acme/whoami".parse().unwrap();
        assert_eq!(name.path(), "/-/v1/tenants/acme/functions/whoami");
        for text in ["", "acme", "acme/", "/whoami", "a/b/c", "Acme/x", "acme/../x"] {
            assert!(text.parse::<FunctionName>().is_err(), "{text}");
        }
    }
}
