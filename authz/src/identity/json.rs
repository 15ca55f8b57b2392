//! JSON read so that it can mean only one thing.
//!
//! Owns a reader that refuses an object naming a member twice: readers disagree on which one counts, and a token
//! must not mean one thing to its issuer and another here. Must never be given text of unbounded length.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::Refusal;

const TWICE: &str = "member given twice";

/// The one JSON object in `bytes`. Nesting is bounded by the parser (128).
pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let value: Unique = serde_json::from_slice(bytes).map_err(|error| {
        if error.to_string().starts_with(TWICE) { Refusal::DuplicateName } else { Refusal::Malformed }
    })?;
    match value.0 {
        Value::Object(map) => Ok(map),
        _ => Err(Refusal::Malformed),
    }
}

/// What a claim path leads to: a member's name, or a JSON pointer starting with `/`.
pub(super) fn claim<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let Some(pointer) = path.strip_prefix('/') else { return claims.get(path) };
    let (first, rest) = pointer.split_once('/').map_or((pointer, ""), |(first, rest)| (first, rest));
    let value = claims.get(&first.replace("~1", "/").replace("~0", "~"))?;
    if rest.is_empty() { Some(value) } else { value.pointer(&format!("/{rest}")) }
}

/// The JSON in `bytes`, whatever it is. A member given twice is an error like any other.
pub(crate) fn read(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice::<Unique>(bytes).map(|Unique(value)| value)
}

struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Unique(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let Unique(value) = map.next_value()?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom(TWICE));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_given_twice_are_refused_at_any_depth() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":{"b":1,"b":2}}"#, r#"{"a":[{"b":1,"\u0062":2}]}"#] {
            assert_eq!(object(text.as_bytes()), Err(Refusal::DuplicateName), "{text}");
        }
    }

    #[test]
    fn only_one_object_and_nothing_after_it() {
        for text in ["", "1", "[]", r#"{} {}"#, r#"{"a":}"#, &"[".repeat(8000), r#"{"a":1e999}"#] {
            assert_eq!(object(text.as_bytes()), Err(Refusal::Malformed), "{text}");
        }
    }

    #[test]
    fn claims_are_found_by_name_or_pointer() {
        let text = br#"{"https://x/roles":["a"],"realm":{"roles":["b"],"a/b":1},"flat":2}"#;
        let claims = object(text).unwrap();
        assert_eq!(claim(&claims, "https://x/roles"), Some(&serde_json::json!(["a"])));
        assert_eq!(claim(&claims, "/realm/roles"), Some(&serde_json::json!(["b"])));
        assert_eq!(claim(&claims, "/realm/a~1b"), Some(&serde_json::json!(1)));
        assert_eq!(claim(&claims, "/flat"), Some(&serde_json::json!(2)));
        assert_eq!(claim(&claims, "realm.roles"), None);
    }
}
