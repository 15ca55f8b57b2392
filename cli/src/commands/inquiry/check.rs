//! `policy check` and `policy test`: files alone.
//!
//! Owns how findings and rows are told. Must never call good what a node would refuse.

use std::path::{Path, PathBuf};

use cofferdam_authz::explain::tenant_named;
use cofferdam_authz::table::Table;
use serde_json::{Value, json};

use super::{authorizer, sources, with};
use crate::commands::{Context, input};
use crate::failure::{Failure, Kind, Place};
use crate::manifest::position;

/// Bytes of a file of tables.
const TABLE_BYTES: usize = 1024 * 1024;

pub(super) fn check(files: &[PathBuf], tenant: &str, context: &Context) -> Result<(), Failure> {
    let sources = sources(files)?;
    let findings = authorizer()?.findings(&tenant_named(tenant), &sources);
    let file_of = |name: &str| {
        let at = sources.iter().position(|(known, _)| known == name);
        at.and_then(|at| files.get(at)).map(|file| file.display().to_string())
    };
    let told = findings.iter().map(|finding| with(json!(finding), "file", json!(file_of(&finding.name))));
    let told: Vec<Value> = told.collect();
    let errors = findings.iter().filter(|finding| !finding.warning).count();
    context.output.result(&json!({ "files": files.len(), "findings": told }), || {
        let line = |finding: &cofferdam_authz::Finding| {
            let (file, warning) =
                (file_of(&finding.name).unwrap_or_default(), if finding.warning { "warning: " } else { "" });
            let place = format!("{file}:{}:{}", finding.line, finding.column);
            [format!("{place}: {warning}{}", finding.problem), format!("  hint: {}", finding.remedy)]
        };
        let mut lines: Vec<String> = findings.iter().flat_map(line).collect();
        if errors == 0 {
            lines.push(format!("{} files would be taken", files.len()));
        }
        lines
    })?;
    match errors {
        0 => Ok(()),
        errors => {
            Err(Failure::new(Kind::Finding, format!("{errors} findings for which a node would refuse these files")))
        }
    }
}

pub(super) fn test(tables: &[PathBuf], policies: &[PathBuf], context: &Context) -> Result<(), Failure> {
    let (authorizer, beside) = (authorizer()?, sources(policies)?);
    let (mut rows, mut asked, mut failed) = (0, 0, Vec::new());
    for file in tables {
        for case in read(file)?.case {
            rows += 1;
            let said = json!({ "file": file.display().to_string(), "claim": case.claim });
            let ran = match case.run(&authorizer, &beside) {
                Ok(ran) => ran,
                Err(error) => {
                    failed.push((said, error.to_string()));
                    continue;
                }
            };
            asked += ran.len();
            for ran in ran.into_iter().filter(|ran| !ran.good) {
                let got = format!(
                    "{} in tier {} by [{}]",
                    ran.answer.outcome,
                    ran.answer.tier,
                    ran.answer.policies.join(", ")
                );
                let tier = case.tier.as_ref().map(|tier| format!(" in tier {tier}")).unwrap_or_default();
                let by = case.by.as_ref().map(|by| format!(" by [{}]", by.join(", "))).unwrap_or_default();
                let wanted = format!("{}{tier}{by}", case.outcome);
                failed.push((said.clone(), format!("{} {}: {got}, not {wanted}", ran.who, ran.action)));
            }
        }
    }
    let told = failed.iter().map(|(said, problem)| with(said.clone(), "problem", json!(problem)));
    let told: Vec<Value> = told.collect();
    context.output.result(&json!({ "rows": rows, "decisions": asked, "failed": told }), || {
        let text = |value: &Value, name: &str| crate::output::text(value, name);
        let mut lines: Vec<String> = failed
            .iter()
            .map(|(said, problem)| format!("{}: {}\n  {problem}", text(said, "file"), text(said, "claim")))
            .collect();
        lines.push(format!("{rows} rows, {asked} decisions, {} not as written", failed.len()));
        lines
    })?;
    match failed.len() {
        0 => Ok(()),
        some => Err(Failure::new(Kind::Finding, format!("{some} decisions do not come out as written"))),
    }
}

fn read(file: &Path) -> Result<Table, Failure> {
    let bytes = input(Some(file), TABLE_BYTES)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Failure::new(Kind::Invalid, format!("`{}` is not UTF-8 text", file.display())))?;
    toml_edit::de::from_str(text).map_err(|error| {
        let (line, column) = position(text, error.span().map_or(0, |span| span.start));
        let failure = Failure::new(Kind::Invalid, error.message().trim().replace('\n', ", "));
        failure.hint("policies/README.md says what a row has").at(Place { file: file.into(), line, column })
    })
}
