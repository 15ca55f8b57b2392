//! `[[functions.NAME.egress]]`: what a function may ask of the outside.
//!
//! Owns how a rule is written down. Whether it may be is the server's rule, asked of the same code.

use std::path::Path;

use cofferdam_control::check_settings;
use cofferdam_model::egress::{CA_BYTES, Credential, EgressRule, HostPattern};
use cofferdam_model::{FunctionLimits, FunctionSettings};

use super::reader::{Table, Wrong};
use super::{Opener, refused};

/// Reads every rule into the settings, each refused at its own place.
pub(super) fn read(
    tables: Vec<Table<'_>>,
    settings: &mut FunctionSettings,
    function: &str,
    open: Opener<'_>,
) -> Result<(), Wrong> {
    for table in tables {
        let span = table.span.clone();
        let rule = rule(table, open)?;
        settings.egress.push(rule);
        // Other mistakes than this rule's are told where they were made.
        let alone = FunctionSettings { limits: FunctionLimits::default(), ..settings.clone() };
        check_settings(function, &alone).map_err(|error| refused(span, &error))?;
    }
    Ok(())
}

fn rule(table: Table<'_>, open: Opener<'_>) -> Result<EgressRule, Wrong> {
    table.only(&["host", "port", "methods", "tls", "ca", "credential"])?;
    let pattern = |text: &String| HostPattern::try_from(text.clone()).map_err(|error| error.to_string());
    let host = table.need_text("host")?.try_map("the host", pattern)?;
    let small = |port: &u64| u16::try_from(*port).map_err(|_| "a port is 1 to 65535".to_owned());
    let port = table.number("port")?.map(|port| port.try_map("the port", small)).transpose()?;
    let ca = match table.text("ca")? {
        Some(path) => {
            let read = |path: &String| {
                let bytes = open(Path::new(path)).map_err(|error| format!("cannot read `{path}`: {error}"))?;
                let text = String::from_utf8(bytes).map_err(|_| format!("`{path}` is not PEM text"))?;
                let fits = text.len() <= CA_BYTES;
                if fits { Ok(text) } else { Err(format!("`{path}` is larger than {CA_BYTES} bytes")) }
            };
            Some(path.try_map("the file of certificate authorities", read)?.value)
        }
        None => None,
    };
    let credential = match table.table("credential")? {
        Some(table) => {
            table.only(&["header", "secret", "prefix"])?;
            Some(Credential {
                header: table.need_text("header")?.value,
                secret: table.need_text("secret")?.value,
                prefix: table.text("prefix")?.map_or_else(String::new, |prefix| prefix.value),
            })
        }
        None => None,
    };
    let tls = table.flag("tls")?.is_none_or(|flag| flag.value);
    Ok(EgressRule {
        host: host.value,
        port: port.map_or(if tls { 443 } else { 80 }, |port| port.value),
        methods: table.texts("methods")?.into_iter().map(|method| method.value).collect(),
        tls,
        ca,
        credential,
    })
}
