//! IAM JSON policy documents, taken over as Cedar.
//!
//! Owns the translation. What has a counterpart here is translated exactly; of what has none, an `Allow` is left out
//! and a `Deny` made wider, and it is named. Must never let a document allow anything here that it does not allow
//! there.

pub(crate) mod action;
mod condition;
mod document;
mod glob;
mod key;
mod principal;
mod resource;
mod test;

use cofferdam_model::{Action, TenantId};
use serde::Serialize;

use self::document::{Document, Statement};
use self::test::{Side, Test};
use crate::decide::Authorizer;
use crate::error::IamError;
use crate::explain::quoted;

/// Bytes of a document that are looked at. AWS takes 20 KiB at most.
pub const DOCUMENT_BYTES: usize = 64 * 1024;

/// To whom a document without `Principal` is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attached {
    /// Whoever has a role.
    Role(String),
    /// A user, by subject.
    User(String),
    /// A service account.
    Account(String),
}

/// How a document is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// To whom it is attached; none for a policy that names its principals itself.
    pub attached: Option<Attached>,
    /// The AWS account this tenant stands for.
    pub account: String,
    /// The AWS region this node stands for.
    pub region: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { attached: None, account: "000000000000".to_owned(), region: "local".to_owned() }
    }
}

/// Something that has no counterpart here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Which statement: its `Sid`, or its place.
    pub statement: String,
    /// What of it, by name.
    pub what: String,
    /// What was done instead.
    pub instead: &'static str,
}

/// A document as Cedar.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Cedar text; empty where nothing could be taken over.
    pub text: String,
    /// Statements in it.
    pub statements: usize,
    /// What could not be translated.
    pub refused: Vec<Refused>,
}

/// What the translation of one statement needs.
struct Scope<'a> {
    options: &'a Options,
    statement: String,
    allow: bool,
    /// Whether the document has variables.
    variables: bool,
    /// Kinds of what its actions are done to.
    kinds: Vec<String>,
    refused: Vec<Refused>,
}

impl Scope<'_> {
    /// Names what has no counterpart, and takes the constant that cannot widen.
    fn gap(&mut self, side: Side, what: String) -> Test {
        let instead = if self.allow { "left out: less is allowed" } else { "not looked at: more is denied" };
        self.refused.push(Refused { statement: self.statement.clone(), what, instead });
        match side {
            Side::Under => Test::Never,
            Side::Over => Test::Always,
        }
    }

    /// Names what is nothing here, and so never meant.
    fn nothing(&mut self, what: String) {
        let instead = "nothing here goes by that name";
        self.refused.push(Refused { statement: self.statement.clone(), what, instead });
    }

    /// From which side a statement may be approached: allow less, or deny more.
    fn side(&self) -> Side {
        if self.allow { Side::Under } else { Side::Over }
    }
}

/// Reads a document and writes it as Cedar for a tenant. The text passes the checks of a policy.
pub fn import(
    authorizer: &Authorizer,
    tenant: &TenantId,
    bytes: &[u8],
    options: &Options,
) -> Result<Imported, IamError> {
    let document = Document::read(bytes)?;
    let mut imported = Imported::default();
    let mut ids = Vec::new();
    for (place, statement) in document.statements.iter().enumerate() {
        if statement.principal.is_none() && options.attached.is_none() {
            return Err(IamError::Unattached);
        }
        let (allow, variables) = (statement.allow, document.variables);
        let label = label(&document, place);
        let mut scope = Scope { options, statement: label, allow, variables, kinds: Vec::new(), refused: Vec::new() };
        let id = unique(statement.sid.as_deref(), place, &mut ids);
        if let Some(text) = translated(authorizer, tenant, statement, (&id, &mut scope)) {
            imported.text.push_str(if imported.statements == 0 { "" } else { "\n" });
            imported.text.push_str(&text);
            imported.statements += 1;
        }
        imported.refused.append(&mut scope.refused);
    }
    if imported.statements > 0 {
        // Each statement passed by itself; together they could still be too many or too long.
        authorizer.compile(tenant, &[("iam".to_owned(), imported.text.clone())]).map_err(IamError::Cedar)?;
    }
    Ok(imported)
}

/// What a statement is called: its `Sid`, unless others have the same, or its place.
fn label(document: &Document, place: usize) -> String {
    let sid = |at: usize| document.statements.get(at).and_then(|statement| statement.sid.as_deref());
    let Some(own) = sid(place) else { return format!("statement {}", place + 1) };
    let alone = (0..document.statements.len()).all(|other| other == place || sid(other) != Some(own));
    if alone { own.to_owned() } else { format!("{own} (statement {})", place + 1) }
}

/// A statement as Cedar; none where nothing of it is left.
fn translated(
    authorizer: &Authorizer,
    tenant: &TenantId,
    statement: &Statement,
    (id, scope): (&str, &mut Scope<'_>),
) -> Option<String> {
    let actions = action::expanded(authorizer, statement, scope);
    let kinds = actions.iter().filter_map(|action| authorizer.done_to(*action)).map(str::to_owned);
    scope.kinds = kinds.collect();
    let side = scope.side();
    let tests = [
        principal::test(statement, side, scope),
        resource::test(statement, side, scope),
        condition::test(statement, side, scope),
    ];
    let test = Test::all(tests.into());
    if actions.is_empty() || matches!(test, Test::Never) {
        return None;
    }
    let passes = |text: &String| authorizer.compile(tenant, &[("iam".to_owned(), text.clone())]).is_ok();
    let text = written(id, (scope, statement), &actions, &test);
    if passes(&text) {
        return Some(text);
    }
    // Too long, or beyond what can be checked. What a `Deny` is about may go, but never the `Deny`.
    scope.gap(side, "it is longer, or more deeply nested, than a policy may be".to_owned());
    let wider = written(id, (scope, statement), &actions, &Test::Always);
    (!scope.allow && passes(&wider)).then_some(wider)
}

fn written(id: &str, (scope, statement): (&Scope<'_>, &Statement), actions: &[Action], test: &Test) -> String {
    let effect = if scope.allow { "permit" } else { "forbid" };
    let who = match scope.options.attached.as_ref().filter(|_| statement.principal.is_none()) {
        Some(Attached::Role(role)) => format!("principal in Role::{}", quoted(role)),
        Some(Attached::User(_)) => "principal is User".to_owned(),
        Some(Attached::Account(_)) => "principal is ServiceAccount".to_owned(),
        None => "principal".to_owned(),
    };
    let actions: Vec<_> = actions.iter().map(|action| format!("Action::\"{}\"", action.as_str())).collect();
    let sid = statement.sid.as_ref().map_or_else(String::new, |sid| format!("@sid({})\n", quoted(sid)));
    let when = match test {
        Test::Is(text) => format!("\nwhen {{ {text} }}"),
        Test::Always | Test::Never => String::new(),
    };
    format!(
        "@id(\"{id}\")\n{sid}{effect} (\n    {who},\n    action in [{}],\n    resource\n){when};\n",
        actions.join(", ")
    )
}

/// An id made of a `Sid`, that no other statement has.
fn unique(sid: Option<&str>, place: usize, ids: &mut Vec<String>) -> String {
    let plain = sid.unwrap_or_default().to_ascii_lowercase();
    let plain: String = plain.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    let letter = plain.starts_with(|c: char| c.is_ascii_alphabetic());
    let mut id = if letter { plain } else { format!("statement-{}", place + 1) };
    if ids.contains(&id) {
        id = format!("{id}-{}", place + 1);
    }
    ids.push(id.clone());
    id
}
