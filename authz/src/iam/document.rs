//! Reading a document.
//!
//! Owns what a document may look like: sizes, members, types. Must never pass over a member it does not know, nor
//! take an object that names one twice.

use serde_json::{Map, Value};

use super::DOCUMENT_BYTES;
use crate::error::IamError;
use crate::identity::json;

/// Statements of one document.
const STATEMENTS: usize = 128;
/// Values of one list, and keys of one condition.
const VALUES: usize = 256;
/// Bytes of one value.
const VALUE_BYTES: usize = 2048;

/// A document.
pub(super) struct Document {
    /// Whether `${...}` stands for something: before version 2012-10-17, and without one, it is a text like others.
    pub(super) variables: bool,
    pub(super) statements: Vec<Statement>,
}

/// One statement of it.
pub(super) struct Statement {
    pub(super) sid: Option<String>,
    pub(super) allow: bool,
    pub(super) principal: Option<Element<Vec<Who>>>,
    pub(super) actions: Element<Vec<String>>,
    pub(super) resources: Element<Vec<String>>,
    pub(super) conditions: Vec<Condition>,
}

/// What a statement is about, or all but that.
pub(super) struct Element<T> {
    pub(super) not: bool,
    pub(super) listed: T,
}

/// A principal by its kind: `AWS`, `Service`, ..., or `*`.
pub(super) struct Who {
    pub(super) kind: String,
    pub(super) name: String,
}

/// One operator on one key.
pub(super) struct Condition {
    pub(super) operator: String,
    pub(super) key: String,
    pub(super) values: Vec<String>,
}

fn wrong(place: &str, problem: impl Into<String>) -> IamError {
    IamError::Document { place: place.to_owned(), problem: problem.into() }
}

impl Document {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, IamError> {
        if bytes.len() > DOCUMENT_BYTES {
            return Err(IamError::TooLarge { bytes: bytes.len(), most: DOCUMENT_BYTES });
        }
        let value = json::read(bytes).map_err(|error| IamError::Json(error.to_string()))?;
        let members = object(&value, "the document")?;
        for (name, value) in members {
            let good = match name.as_str() {
                "Version" => matches!(value.as_str(), Some("2012-10-17" | "2008-10-17")),
                "Id" => value.is_string(),
                "Statement" => true,
                _ => return Err(wrong("the document", format!("`{name}` is not a member of one"))),
            };
            if !good {
                return Err(wrong("the document", format!("`{name}` is not one that is known")));
            }
        }
        let statements = match members.get("Statement") {
            Some(Value::Array(statements)) => statements.as_slice(),
            Some(statement @ Value::Object(_)) => std::slice::from_ref(statement),
            _ => return Err(wrong("the document", "`Statement` is missing, or neither an object nor a list")),
        };
        if statements.is_empty() || statements.len() > STATEMENTS {
            return Err(wrong("the document", format!("{} statements: 1 to {STATEMENTS} are taken", statements.len())));
        }
        let read = |(place, value)| Statement::read(&format!("statement {}", place + 1), value);
        let variables = members.get("Version").and_then(Value::as_str) == Some("2012-10-17");
        Ok(Self { variables, statements: statements.iter().enumerate().map(read).collect::<Result<_, _>>()? })
    }
}

impl Statement {
    fn read(place: &str, value: &Value) -> Result<Self, IamError> {
        let members = object(value, place)?;
        const KNOWN: [&str; 9] = [
            "Sid",
            "Effect",
            "Principal",
            "NotPrincipal",
            "Action",
            "NotAction",
            "Resource",
            "NotResource",
            "Condition",
        ];
        if let Some(name) = members.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            return Err(wrong(place, format!("`{name}` is not a member of a statement")));
        }
        let sid = match members.get("Sid") {
            None => None,
            Some(Value::String(sid)) if sid.len() <= VALUE_BYTES => Some(sid.clone()).filter(|sid| !sid.is_empty()),
            Some(_) => return Err(wrong(place, "`Sid` is not a text")),
        };
        let allow = match members.get("Effect").and_then(Value::as_str) {
            Some("Allow") => true,
            Some("Deny") => false,
            _ => return Err(wrong(place, "`Effect` is neither `Allow` nor `Deny`")),
        };
        let needed = |name: &str| wrong(place, format!("`{name}` or `Not{name}` is missing"));
        let texts = |value: &Value, name: &str| texts(value, place, name);
        let principal = one_of(members, "Principal", place)?
            .map(|(not, value)| Ok(Element { not, listed: principals(value, place)? }))
            .transpose()?;
        let (not, value) = one_of(members, "Action", place)?.ok_or_else(|| needed("Action"))?;
        let actions = Element { not, listed: texts(value, "Action")? };
        let (not, value) = one_of(members, "Resource", place)?.ok_or_else(|| needed("Resource"))?;
        let resources = Element { not, listed: texts(value, "Resource")? };
        let conditions = members.get("Condition").map_or(Ok(Vec::new()), |value| conditions(value, place))?;
        Ok(Self { sid, allow, principal, actions, resources, conditions })
    }
}

fn object<'a>(value: &'a Value, place: &str) -> Result<&'a Map<String, Value>, IamError> {
    value.as_object().ok_or_else(|| wrong(place, "it is not an object"))
}

/// A member or its negation, but not both.
fn one_of<'a>(members: &'a Map<String, Value>, name: &str, place: &str) -> Result<Option<(bool, &'a Value)>, IamError> {
    match (members.get(name), members.get(&format!("Not{name}"))) {
        (Some(_), Some(_)) => Err(wrong(place, format!("both `{name}` and `Not{name}`"))),
        (Some(value), None) => Ok(Some((false, value))),
        (None, Some(value)) => Ok(Some((true, value))),
        (None, None) => Ok(None),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn texts(value: &Value, place: &str, name: &str) -> Result<Vec<String>, IamError> {
    let listed = match value {
        Value::Array(items) => items.iter().map(scalar).collect::<Option<Vec<_>>>(),
        other => scalar(other).map(|text| vec![text]),
    };
    let listed = listed.ok_or_else(|| wrong(place, format!("`{name}` is neither a text nor a list of texts")))?;
    if listed.is_empty() || listed.len() > VALUES || listed.iter().any(|text| text.len() > VALUE_BYTES) {
        return Err(wrong(place, format!("`{name}` must have 1 to {VALUES} values of at most {VALUE_BYTES} bytes")));
    }
    Ok(listed)
}

fn principals(value: &Value, place: &str) -> Result<Vec<Who>, IamError> {
    let members = match value {
        Value::String(text) if text == "*" => return Ok(vec![Who { kind: "*".to_owned(), name: "*".to_owned() }]),
        Value::Object(members) if !members.is_empty() => members,
        _ => return Err(wrong(place, "`Principal` is neither `*` nor an object of kinds")),
    };
    let mut all = Vec::new();
    for (kind, value) in members {
        if !["AWS", "Service", "Federated", "CanonicalUser"].contains(&kind.as_str()) {
            return Err(wrong(place, format!("`{kind}` is not a kind of principal")));
        }
        all.extend(texts(value, place, kind)?.into_iter().map(|name| Who { kind: kind.clone(), name }));
    }
    Ok(all)
}

fn conditions(value: &Value, place: &str) -> Result<Vec<Condition>, IamError> {
    let mut all: Vec<Condition> = Vec::new();
    for (operator, keys) in object(value, place)? {
        for (key, values) in object(keys, &format!("{place}, `{operator}`"))? {
            let values = texts(values, place, key)?;
            let again = |known: &Condition| known.operator == *operator && known.key.eq_ignore_ascii_case(key);
            if all.iter().any(again) {
                return Err(wrong(place, format!("`{key}` is named twice under `{operator}`")));
            }
            all.push(Condition { operator: operator.clone(), key: key.clone(), values });
        }
    }
    if all.len() > VALUES {
        return Err(wrong(place, format!("more than {VALUES} conditions")));
    }
    Ok(all)
}
