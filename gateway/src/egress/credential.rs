//! Secrets that are put into requests, and kept out of what comes back.
//!
//! Owns the values, and every form of them that is blotted out. Must never show one: not in `Debug`, an error or a log.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use cofferdam_model::EgressRule;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::error::EgressSetupError;
use super::heads;

/// Bytes of the shortest value: shorter ones could not be told from other text.
const LEAST_BYTES: usize = 6;
const MOST_BYTES: usize = 8 * 1024;
/// What stands in the place of a secret.
const BLOT: &str = "[redacted]";
const UPPER: &[u8; 16] = b"0123456789ABCDEF";
const LOWER: &[u8; 16] = b"0123456789abcdef";

/// A field that is put into the requests of one rule.
pub(super) struct Injected {
    /// Name of the secret.
    pub(super) secret: String,
    header: HeaderName,
    value: Zeroizing<String>,
}

impl Injected {
    /// Puts the field in, in place of any of its name.
    pub(super) fn inject(&self, headers: &mut HeaderMap) {
        // The value was tried when it was read, so that it is a field's value.
        if let Ok(mut value) = HeaderValue::from_str(&self.value) {
            value.set_sensitive(true);
            headers.insert(self.header.clone(), value);
        }
    }
}

/// The credentials of an outlet's rules.
pub(super) struct Credentials {
    /// By rule.
    rules: Vec<Option<Injected>>,
    /// What is blotted out, longest first.
    forms: Vec<Zeroizing<String>>,
}

impl Credentials {
    pub(super) fn new(rules: &[EgressRule], secrets: &[(String, Zeroizing<String>)]) -> Result<Self, EgressSetupError> {
        let mut forms = Vec::new();
        let mut injected = Vec::with_capacity(rules.len());
        for rule in rules {
            injected.push(one(rule, secrets, &mut forms)?);
        }
        forms.sort_by(|a: &Zeroizing<String>, b| b.len().cmp(&a.len()).then_with(|| a.as_str().cmp(b.as_str())));
        forms.dedup_by(|a, b| a.as_str() == b.as_str());
        Ok(Self { rules: injected, forms })
    }

    /// The credential of a rule.
    pub(super) fn of(&self, rule: usize) -> Option<&Injected> {
        self.rules.get(rule)?.as_ref()
    }

    /// Blots the values out of a line.
    pub(super) fn redact(&self, line: &mut String) {
        for form in &self.forms {
            if line.contains(form.as_str()) {
                *line = line.replace(form.as_str(), BLOT);
            }
        }
    }

    /// Blots the values out of fields that came back.
    pub(super) fn redact_fields(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            for form in &self.forms {
                if let Some(clean) = replace(value.as_bytes(), form.as_bytes())
                    && let Ok(clean) = HeaderValue::from_bytes(&clean)
                {
                    *value = clean;
                }
            }
        }
    }
}

fn one(
    rule: &EgressRule,
    secrets: &[(String, Zeroizing<String>)],
    forms: &mut Vec<Zeroizing<String>>,
) -> Result<Option<Injected>, EgressSetupError> {
    let Some(credential) = &rule.credential else { return Ok(None) };
    if !rule.tls {
        return Err(EgressSetupError::rule(rule, "a credential is sent over TLS only; take one of the two out"));
    }
    let header = HeaderName::try_from(credential.header.as_str()).ok().filter(|name| !heads::is_reserved(name));
    let header = header.ok_or_else(|| {
        let header: String = credential.header.chars().take(64).collect();
        EgressSetupError::rule(rule, format!("`{header}` is no header a credential can be in"))
    })?;
    let secret = credential.secret.clone();
    let Some((_, value)) = secrets.iter().find(|(name, _)| *name == secret) else {
        return Err(EgressSetupError::NoSecret { rule: rule.to_string(), secret });
    };
    let bad = |message| EgressSetupError::BadSecret { rule: rule.to_string(), secret: secret.clone(), message };
    if value.len() < LEAST_BYTES {
        return Err(bad("its value has fewer than 6 bytes, so that it could not be kept out of logs"));
    }
    if value.len() > MOST_BYTES {
        return Err(bad("its value has more than 8192 bytes"));
    }
    let mut whole = Zeroizing::new(String::with_capacity(credential.prefix.len() + value.len()));
    whole.push_str(&credential.prefix);
    whole.push_str(value);
    let plain = |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if !plain(&whole) || value.trim() != value.as_str() || HeaderValue::from_str(&whole).is_err() {
        return Err(bad("it holds a byte that no header can, or a space or line break at an end"));
    }
    all_forms(value, forms);
    Ok(Some(Injected { secret, header, value: whole }))
}

/// The forms in which a value comes back from those who log, quote or encode what they were sent.
fn all_forms(value: &str, forms: &mut Vec<Zeroizing<String>>) {
    let mut add = |form: Zeroizing<String>| {
        if form.len() >= LEAST_BYTES {
            forms.push(form);
        }
    };
    let owned = |text: &str| Zeroizing::new(text.to_owned());
    add(owned(value));
    for digits in [UPPER, LOWER] {
        add(each(value, |byte, out| hex(byte, digits, out)));
        for space in ["%20", "+"] {
            add(each(value, |byte, out| match byte {
                b' ' => out.push_str(space),
                byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => out.push(char::from(byte)),
                byte => {
                    out.push('%');
                    hex(byte, digits, out);
                }
            }));
        }
    }
    // As JSON quotes it.
    add(each(value, |byte, out| {
        if byte == b'"' || byte == b'\\' {
            out.push('\\');
        }
        out.push(char::from(byte));
    }));
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        for before in 0..3 {
            add(inner(&engine, value, before));
        }
    }
    // What stands encoded already, as in `Basic`, is logged decoded by those it is meant for.
    let decoded = STANDARD_NO_PAD.decode(value.trim_end_matches('=')).map(Zeroizing::new);
    if let Some(text) = decoded.ok().as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok()) {
        add(owned(text));
        // The part behind `user:` is the secret one.
        add(owned(text.split_once(':').map_or("", |(_, password)| password)));
    }
}

/// A form that is made byte by byte, each to three at most: it is never moved, so that no copy is left behind.
fn each(value: &str, write: impl Fn(u8, &mut String)) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(value.len() * 3));
    for byte in value.bytes() {
        write(byte, &mut out);
    }
    out
}

fn hex(byte: u8, digits: &[u8; 16], out: &mut String) {
    for digit in [byte >> 4, byte & 15] {
        out.extend(digits.get(usize::from(digit)).map(|digit| char::from(*digit)));
    }
}

/// The characters that stand for a value alone when its base64 begins so many bytes before it.
fn inner(engine: &impl base64::Engine, value: &str, before: usize) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(before + value.len()));
    bytes.resize(before, 0);
    bytes.extend_from_slice(value.as_bytes());
    let text = Zeroizing::new(engine.encode(bytes.as_slice()));
    let first = (before * 8).div_ceil(6);
    let last = bytes.len() * 8 / 6;
    Zeroizing::new(text.get(first..last).unwrap_or_default().to_owned())
}

fn replace(text: &[u8], form: &[u8]) -> Option<Vec<u8>> {
    let mut clean = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(form.len()).position(|window| window == form) {
        clean.extend_from_slice(rest.get(..at).unwrap_or_default());
        clean.extend_from_slice(BLOT.as_bytes());
        rest = rest.get(at + form.len()..).unwrap_or_default();
    }
    if clean.is_empty() {
        return None;
    }
    clean.extend_from_slice(rest);
    Some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    fn rule(text: &str) -> EgressRule {
        serde_json::from_str(text).unwrap()
    }

    fn secrets(value: &str) -> Vec<(String, Zeroizing<String>)> {
        vec![("API_KEY".into(), Zeroizing::new(value.into()))]
    }

    fn with(header: &str, value: &str) -> Result<Credentials, EgressSetupError> {
        let credential = format!(r#"{{"header": "{header}", "secret": "API_KEY", "prefix": "Bearer "}}"#);
        let rule = rule(&format!(r#"{{"host": "api.example.com", "credential": {credential}}}"#));
        Credentials::new(&[rule], &secrets(value))
    }

    #[test]
    fn a_credential_replaces_what_the_guest_set_and_is_marked_as_secret() {
        let credentials = with("authorization", "hunter22").unwrap();
        let mut headers = HeaderMap::new();
        headers.append("authorization", HeaderValue::from_static("Bearer forged"));
        headers.append("authorization", HeaderValue::from_static("Bearer forged too"));
        credentials.of(0).unwrap().inject(&mut headers);
        assert_eq!(headers.get_all("authorization").iter().collect::<Vec<_>>(), ["Bearer hunter22"]);
        assert!(!format!("{headers:?}").contains("hunter22"));
    }

    #[test]
    fn the_echo_of_a_credential_is_blotted_out_in_every_usual_form() {
        let value = "s3cr/t+val ue\"\\9";
        let credentials = with("authorization", value).unwrap();
        let echoes = [
            value.to_owned(),
            format!("Bearer {value}"),
            STANDARD.encode(value),
            URL_SAFE.encode(value),
            STANDARD.encode(format!("Bearer {value}")),
            STANDARD.encode(format!("u:{value} and more")),
            STANDARD.encode(format!("us:{value}!")),
            STANDARD.encode(format!("use:{value}")),
            "s3cr%2Ft%2Bval%20ue%22%5C9".to_owned(),
            "s3cr%2ft%2bval+ue%22%5c9".to_owned(),
            value.bytes().map(|byte| format!("{byte:02x}")).collect(),
            serde_json::to_string(value).unwrap(),
        ];
        for echo in echoes {
            let mut line = format!("upstream said: {echo}!");
            credentials.redact(&mut line);
            assert!(line.contains(BLOT), "{echo} gave {line}");
            assert!(!line.contains("3cr"), "{echo} gave {line}");
            let mut headers = HeaderMap::new();
            headers.insert("x-echo", HeaderValue::from_str(&format!("a {echo} b")).unwrap());
            credentials.redact_fields(&mut headers);
            assert!(headers["x-echo"].to_str().unwrap().contains(BLOT), "{echo} gave {headers:?}");
        }
        let mut other = "nothing to see here".to_owned();
        credentials.redact(&mut other);
        assert_eq!(other, "nothing to see here");
    }

    #[test]
    fn a_password_in_basic_form_is_blotted_out_decoded_too() {
        let credentials = with("authorization", &STANDARD.encode("user:correct horse")).unwrap();
        let mut line = "login of user with correct horse".to_owned();
        credentials.redact(&mut line);
        assert_eq!(line, "login of user with [redacted]");
    }

    #[test]
    fn credentials_that_cannot_be_kept_are_refused_without_showing_them() {
        for header in
            ["host", "content-length", "connection", "transfer-encoding", "te", "x-cofferdam-a", "proxy-x", "a b", ""]
        {
            assert!(matches!(with(header, "hunter22"), Err(EgressSetupError::Rule { .. })), "{header}");
        }
        for value in ["", "short", "line\nbreak", "ends with break\n", " padded", "umlaut-\u{e4}"] {
            let error = with("authorization", value).err().unwrap();
            assert!(matches!(error, EgressSetupError::BadSecret { .. }), "{value}");
            assert!(value.is_empty() || !error.to_string().contains(value), "{error}");
        }
        let plain = rule(
            r#"{"host": "a.b", "port": 80, "tls": false, "credential": {"header": "x-key", "secret": "API_KEY"}}"#,
        );
        assert!(matches!(Credentials::new(&[plain], &secrets("hunter22")), Err(EgressSetupError::Rule { .. })));
        let missing = rule(r#"{"host": "a.example", "credential": {"header": "x-key", "secret": "OTHER"}}"#);
        let error = Credentials::new(&[missing], &secrets("hunter22")).err().unwrap().to_string();
        assert!(error.contains("`OTHER`") && !error.contains("hunter22"), "{error}");
    }
}
