//! `init`: makes a data directory from which a node can be served.
//!
//! Owns what is in it. Must never overwrite a file, and never print a key: the operator's is left in a file of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use cofferdam_audit::Signer;
use cofferdam_control::issuer::{self, DevelopmentIssuer};
use cofferdam_control::{Control, ControlConfig, create_private, fresh_key, private_dir};
use cofferdam_gateway::certificate;
use cofferdam_gateway::config::ServerConfig;
use cofferdam_gateway::error::GatewayError;
use cofferdam_gateway::root::RootKeyConfig;
use cofferdam_model::{Clock, OsRandom, Random, SystemClock};
use serde_json::json;
use zeroize::Zeroizing;

use super::Context;
use crate::failure::{Failure, Kind, Place};
use crate::keys::{self, Pages};
use crate::layout::Layout;

/// Arguments of `cofferdam init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Name of the log, a host and a name; it is in every checkpoint and never changes
    #[arg(long, default_value = "cofferdam.local/node-1")]
    origin: String,
    /// TOML file with a table `[root_key]`: the root key is kept there instead of in a file of the directory
    #[arg(long, value_name = "FILE")]
    root_key: Option<PathBuf>,
    /// A further host name for the self-signed certificate, besides localhost; may be repeated
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
}

/// Runs `cofferdam init`.
pub(crate) fn run(args: &InitArgs, context: &Context, clock: &dyn Clock, random: &dyn Random) -> Result<(), Failure> {
    let layout = &context.layout;
    check_origin(&args.origin)?;
    let chosen = args.root_key.as_deref().map(|file| chosen(file, layout)).transpose()?;
    let state = ControlConfig::in_dir(layout.data());
    let operator = match &chosen {
        None => Control::init(&state, clock, random)?,
        Some((_, root_key)) => {
            let (real, fresh): (Arc<dyn Clock>, Arc<dyn Random>) =
                (Arc::new(SystemClock::default()), Arc::new(OsRandom));
            let vault = keys::vault(root_key, layout.data(), Arc::new(Pages::new()), &real, &fresh)?;
            Control::init_with(&state, &vault, clock, random)?
        }
    };
    let key = Zeroizing::new(format!("{}\n", operator.text.expose()));
    create_private(&layout.operator_key(), key.as_bytes())?;
    create_private(&layout.artifact_key(), fresh_key(random).as_slice())?;
    let signer = Signer::create(&layout.audit_key(), &args.origin, random)?;
    DevelopmentIssuer::create(layout.data(), random)?;
    if let Some(dir) = layout.certificate().parent() {
        private_dir(dir)?;
    }
    certificate::create(&layout.certificate(), &layout.certificate_key(), &args.hosts, clock)?;
    // Last: a directory without it was not made to the end, and is not served from.
    let root_key = chosen.map(|(text, _)| text).unwrap_or_default();
    create_private(&layout.config(), format!("{}{root_key}", config(&args.origin)).as_bytes())?;

    let (data, file) = (layout.data().display(), layout.operator_key());
    let (file, public) = (file.display(), signer.verifier_key());
    let told = json!({
        "data": data.to_string(),
        "operator_key_id": operator.id,
        "operator_key_file": file.to_string(),
        "log_key": public,
    });
    context.output.result(&told, || {
        vec![
            format!("made {data}"),
            format!("operator's key  {file} (move it to where operators work; it is not needed to serve)"),
            format!("log's key       {public} (keep a copy elsewhere: it is what the log is checked with)"),
            format!("next            cofferdam serve --data {data}"),
        ]
    })
}

/// Where the root key is to be: the text for the configuration, and what it says there. Paths in it are as in the
/// configuration: those that are relative are below the new directory.
fn chosen(file: &Path, layout: &Layout) -> Result<(String, RootKeyConfig), Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| Failure::file("read", file, &error))?;
    let whole = format!("origin = \"init.invalid/check\"\n{text}");
    match ServerConfig::parse(&whole, &layout.config()) {
        Ok(config) => Ok((format!("\n{text}\n"), config.root_key)),
        // The line before the text is ours.
        Err(GatewayError::Config { line, column, message, remedy, .. }) => {
            let place = Place { file: file.to_owned(), line: line.saturating_sub(1), column };
            Err(Failure::new(Kind::Invalid, message).hint(remedy).at(place))
        }
        Err(error) => Err(error.into()),
    }
}

/// The same that the configuration and the log's key demand, asked before anything is made.
fn check_origin(origin: &str) -> Result<(), Failure> {
    let good = (1..=200).contains(&origin.len())
        && origin.bytes().all(|byte| byte.is_ascii_graphic() && !b"+\"\\".contains(&byte))
        && origin.contains('/');
    if good {
        return Ok(());
    }
    let failure = Failure::usage(format!("`{origin}` does not name a log"));
    Err(failure.hint("write a host and a name, as in `cofferdam.example/node-1`"))
}

/// The first configuration. It names the development issuer, so that taking it out is a deliberate act.
fn config(origin: &str) -> String {
    let (name, audience, lifetime) = (issuer::ISSUER, issuer::AUDIENCE, issuer::MAX_TTL.as_secs());
    format!(
        "# This node. Whatever is left out has its default; an unknown key is refused, with its line.\n\
         # Changes take effect when the node is started again.\n\n\
         # Name of the log. It is in every signed checkpoint: never change it.\n\
         origin = \"{origin}\"\n\
         data = \".\"\n\n\
         # For trying things out: tokens made with `cofferdam token`. Whoever can read this directory can make one\n\
         # for anybody: take it out once you have an identity provider of your own.\n\
         [[issuers]]\n\
         issuer = \"{name}\"\n\
         audience = \"{audience}\"\n\
         algorithms = [\"EdDSA\"]\n\
         typ = \"JWT\"\n\
         jwks_file = \"{}\"\n\
         tenant_claim = \"tenant\"\n\
         roles_claim = \"roles\"\n\
         groups_claim = \"groups\"\n\
         lifetime_seconds = {lifetime}\n",
        issuer::jwks_path(std::path::Path::new("")).display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;
    use cofferdam_model::UnixNanos;
    use cofferdam_model::clock::ManualClock;
    use cofferdam_model::random::SeededRandom;
    use std::os::unix::fs::PermissionsExt;

    fn args(origin: &str) -> InitArgs {
        InitArgs { origin: origin.into(), hosts: vec!["node.example".into()], root_key: None }
    }

    #[test]
    fn directory_is_complete_private_and_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at(&dir.path().join("data"));
        let context = Context { layout: layout.clone(), output: Output { json: true } };
        let clock = ManualClock::at(UnixNanos::from_seconds(1_795_171_080));
        let random = SeededRandom::new(1);
        run(&args("a.example/one"), &context, &clock, &random).unwrap();
        for file in [layout.operator_key(), layout.audit_key(), layout.artifact_key(), layout.certificate_key()] {
            let mode = std::fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", file.display());
        }
        let key = std::fs::read_to_string(layout.operator_key()).unwrap();
        assert!(key.starts_with("cof_") && key.ends_with('\n'));
        let config = ServerConfig::load(&layout.config()).unwrap();
        assert_eq!(config.origin, "a.example/one");
        assert_eq!(config.data.canonicalize().unwrap(), layout.data().canonicalize().unwrap());
        assert!(certificate::load(&layout.certificate(), &layout.certificate_key()).is_ok());
        let again = run(&args("a.example/one"), &context, &clock, &random).unwrap_err();
        assert_eq!(again.exit_code(), 6);
    }

    #[test]
    fn configured_issuer_is_the_development_issuer() {
        let text = config("a.example/one");
        let parsed = ServerConfig::parse(&text, std::path::Path::new("/d/cofferdam.toml")).unwrap();
        let wanted = issuer::config(std::path::Path::new("/d"));
        let [declared] = parsed.issuers.as_slice() else { panic!("one issuer") };
        assert_eq!(serde_json::to_value(declared).unwrap(), serde_json::to_value(&wanted).unwrap());
    }

    #[test]
    fn root_key_can_be_chosen_and_what_is_wrong_with_it_is_told_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at(&dir.path().join("data"));
        let context = Context { layout: layout.clone(), output: Output { json: true } };
        let clock = ManualClock::at(UnixNanos::from_seconds(1_795_171_080));
        let elsewhere = dir.path().join("root");
        create_private(&elsewhere, &[7; 32]).unwrap();
        let file = dir.path().join("root-key.toml");
        let with = |text: &str| {
            std::fs::write(&file, text).unwrap();
            run(&InitArgs { root_key: Some(file.clone()), ..args("a.example/one") }, &context, &clock, &OsRandom)
        };
        for bad in ["[root_key]\nprovider = { cloud = {} }", "[root_key]\nkeep_seconds = 0"] {
            let refused = with(bad).unwrap_err();
            assert_eq!((refused.exit_code(), refused.json()["line"].as_u64()), (3, Some(2)), "{}", refused.text());
        }
        assert!(!layout.data().exists(), "nothing is made before");
        with(&format!("[root_key.provider.file]\npath = {elsewhere:?}\n")).unwrap();
        assert!(!layout.data().join("root.key").exists());
        let config = ServerConfig::load(&layout.config()).unwrap();
        assert!(matches!(config.root_key.provider, cofferdam_gateway::root::Provider::File(_)));
    }

    #[test]
    fn origin_that_names_no_log_is_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at(&dir.path().join("data"));
        let context = Context { layout: layout.clone(), output: Output { json: true } };
        let clock = ManualClock::at(UnixNanos::from_seconds(1));
        for origin in ["", "nohost", "a b/c", "a+b/c", "a\"b/c", "a/é"] {
            let refused = run(&args(origin), &context, &clock, &SeededRandom::new(1)).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{origin}");
        }
        assert!(!layout.data().exists());
    }
}
