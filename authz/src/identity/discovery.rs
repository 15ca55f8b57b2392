//! Discovery documents: where an issuer says its keys are.
//!
//! Owns what of such a document is believed (OpenID Connect Discovery 1.0, 4.3): its `issuer`, to the letter, and one
//! `https` address. Must never take anything else from it: algorithms, types and lifetimes are declared, not found.

use serde_json::Value;

use super::json;

const URL_BYTES: usize = 2048;

/// Where the key set of `issuer` is, as its discovery document says.
pub(super) fn jwks_uri(document: &[u8], issuer: &str) -> Result<String, &'static str> {
    let document = json::object(document).map_err(|_| "not a JSON object with each member once")?;
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    if text("issuer") != Some(issuer) {
        return Err("it is of another `issuer`, to the letter");
    }
    let url = text("jwks_uri").filter(|url| url.len() <= URL_BYTES).ok_or("no text `jwks_uri`")?;
    if !url.starts_with("https://") || url.chars().any(|c| c.is_control() || c == ' ') {
        return Err("its `jwks_uri` does not start with `https://`: keys fetched in the clear prove nothing");
    }
    Ok(url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_believed_only_for_its_own_issuer_and_over_https() {
        let found = |text: &str| jwks_uri(text.as_bytes(), "https://a.test");
        let good = r#"{"issuer":"https://a.test","jwks_uri":"https://keys.test/a","x":1}"#;
        assert_eq!(found(good), Ok("https://keys.test/a".to_owned()));
        for bad in [
            r#"{"issuer":"https://a.test/","jwks_uri":"https://keys.test/a"}"#,
            r#"{"issuer":"HTTPS://a.test","jwks_uri":"https://keys.test/a"}"#,
            r#"{"issuer":["https://a.test"],"jwks_uri":"https://keys.test/a"}"#,
            r#"{"jwks_uri":"https://keys.test/a"}"#,
            r#"{"issuer":"https://a.test"}"#,
            r#"{"issuer":"https://a.test","jwks_uri":"http://keys.test/a"}"#,
            r#"{"issuer":"https://a.test","jwks_uri":"file:///etc/passwd"}"#,
            r#"{"issuer":"https://a.test","jwks_uri":7}"#,
            r#"{"issuer":"https://a.test","issuer":"https://a.test","jwks_uri":"https://keys.test/a"}"#,
            "[]",
            "",
        ] {
            assert!(found(bad).is_err(), "{bad}");
        }
    }
}
