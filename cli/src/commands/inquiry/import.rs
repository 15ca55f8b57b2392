//! `policy import`: documents of other systems as Cedar.
//!
//! Owns how what was refused is told, beside the text. Must never put a text out without what it leaves out.

use std::path::Path;

use cofferdam_authz::explain::tenant_named;
use cofferdam_authz::iam::{Attached, DOCUMENT_BYTES, Options, import};
use serde_json::json;

use super::authorizer;
use super::policy::ImportArgs;
use crate::commands::{Context, input};
use crate::failure::{Failure, Kind};

pub(super) fn run(args: &ImportArgs, context: &Context) -> Result<(), Failure> {
    let super::policy::System::Iam = args.from;
    let from = (args.file != Path::new("-")).then_some(args.file.as_path());
    let bytes = input(from, DOCUMENT_BYTES)?;
    let attached = args.attached.as_deref().map(attached).transpose()?;
    let options = Options { attached, account: args.account.clone(), region: args.region.clone() };
    let imported = import(&authorizer()?, &tenant_named("files"), &bytes, &options).map_err(|error| {
        let failure = Failure::new(Kind::Invalid, error.to_string()).within(&args.file.display().to_string());
        failure.hint("a document attached to somebody takes --for role:NAME; docs/POLICY.md says what is taken over")
    })?;
    for refused in &imported.refused {
        context.output.note(&format!("{}: {}: {}", refused.statement, refused.what, refused.instead));
    }
    let count = imported.refused.len();
    context.output.note(&format!("{} statements taken over, {count} things have no counterpart", imported.statements));
    context.output.result(&json!(imported), || imported.text.lines().map(str::to_owned).collect())?;
    if args.strict && count > 0 {
        return Err(Failure::new(Kind::Finding, format!("{count} things have no counterpart here")));
    }
    Ok(())
}

fn attached(text: &str) -> Result<Attached, Failure> {
    match text.split_once(':').filter(|(_, name)| !name.is_empty()) {
        Some(("role", name)) => Ok(Attached::Role(name.to_owned())),
        Some(("user", name)) => Ok(Attached::User(name.to_owned())),
        Some(("account", name)) => Ok(Attached::Account(name.to_owned())),
        _ => Err(Failure::usage(format!("`--for {text}`: write it as role:NAME, user:SUBJECT or account:NAME"))),
    }
}
