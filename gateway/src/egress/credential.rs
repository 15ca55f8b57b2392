//! Secrets that are put into requests, and kept out of what comes back.
//!
//! Owns the values, and every form of them that is blotted out. Must never show one: not in `Debug`, an error or a log.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use cofferdam_model::EgressRule;
use cofferdam_model::egress::Credential;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use memchr::memmem;
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

    /// What stands at `own` in a text, the values blotted out. They are looked for in all of the text.
    pub(super) fn redact(&self, text: &[u8], own: Range<usize>) -> Vec<u8> {
        blotted(text, own, &self.found(text))
    }

    /// Bytes of the longest form that is looked for.
    pub(super) fn longest(&self) -> usize {
        self.forms.first().map_or(0, |form| form.len())
    }

    /// Blots the values out of fields that came back.
    pub(super) fn redact_fields(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            let found = self.found(value.as_bytes());
            if !found.is_empty() {
                let clean = blotted(value.as_bytes(), 0..value.len(), &found);
                *value = HeaderValue::from_bytes(&clean).unwrap_or_else(|_| HeaderValue::from_static(BLOT));
            }
        }
    }

    /// Where values stand, in order; places that overlap are one, so that nothing of a value is left beside another.
    fn found(&self, text: &[u8]) -> Vec<Range<usize>> {
        let mut all = Vec::new();
        for form in &self.forms {
            let places = memmem::find_iter(text, form.as_bytes());
            all.extend(places.map(|from| from..from.saturating_add(form.len())));
        }
        all.sort_unstable_by_key(|place: &Range<usize>| place.start);
        let mut apart: Vec<Range<usize>> = Vec::with_capacity(all.len());
        for place in all {
            match apart.last_mut() {
                Some(last) if place.start < last.end => last.end = last.end.max(place.end),
                _ => apart.push(place),
            }
        }
        apart
    }
}

/// What stands at `own` in a text, with something else in those places.
fn blotted(text: &[u8], own: Range<usize>, places: &[Range<usize>]) -> Vec<u8> {
    let (mut clean, mut at) = (Vec::with_capacity(own.len()), own.start);
    for place in places.iter().filter(|place| place.end > own.start && place.start < own.end) {
        clean.extend_from_slice(text.get(at..place.start).unwrap_or_default());
        clean.extend_from_slice(BLOT.as_bytes());
        at = place.end;
    }
    clean.extend_from_slice(text.get(at..own.end).unwrap_or_default());
    clean
}

/// Whether a rule's credential could be put in at all, whatever its value is.
pub(super) fn check(rule: &EgressRule) -> Result<(), EgressSetupError> {
    field(rule).map(drop)
}

/// The field that a rule's credential goes into.
fn field(rule: &EgressRule) -> Result<Option<(&Credential, HeaderName)>, EgressSetupError> {
    let Some(credential) = &rule.credential else { return Ok(None) };
    if !rule.tls {
        return Err(EgressSetupError::rule(rule, "a credential is sent over TLS only; take one of the two out"));
    }
    if !is_plain(&credential.prefix) {
        let message = "the credential's `prefix` holds a byte that no header can; use printable ASCII";
        return Err(EgressSetupError::rule(rule, message));
    }
    let header = HeaderName::try_from(credential.header.as_str()).ok().filter(|name| !heads::is_reserved(name));
    let header = header.ok_or_else(|| {
        let header: String = credential.header.chars().take(64).collect();
        EgressSetupError::rule(rule, format!("`{header}` is no header a credential can be in; name another"))
    })?;
    Ok(Some((credential, header)))
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

fn one(
    rule: &EgressRule,
    secrets: &[(String, Zeroizing<String>)],
    forms: &mut Vec<Zeroizing<String>>,
) -> Result<Option<Injected>, EgressSetupError> {
    let Some((credential, header)) = field(rule)? else { return Ok(None) };
    let secret = credential.secret.clone();
    let Some((_, value)) = secrets.iter().find(|(name, _)| *name == secret) else {
        return Err(EgressSetupError::NoSecret { rule: rule.to_string(), secret });
    };
    let bad = |message| EgressSetupError::BadSecret { rule: rule.to_string(), secret: secret.clone(), message };
    if value.len() < LEAST_BYTES {
        return Err(bad(
            "its value has fewer than 6 bytes, so that it could not be kept out of logs; set a longer one",
        ));
    }
    if value.len() > MOST_BYTES {
        return Err(bad("its value has more than 8192 bytes; set a shorter one"));
    }
    let mut whole = Zeroizing::new(String::with_capacity(credential.prefix.len() + value.len()));
    whole.push_str(&credential.prefix);
    whole.push_str(value);
    if !is_plain(value) || value.trim() != value.as_str() || HeaderValue::from_str(&whole).is_err() {
        return Err(bad(
            "its value holds a byte that no header can, or a space or line break at an end; set it without",
        ));
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
    // As JSON quotes it: no more than it must, or with the slashes of `</script>` and what else HTML would understand.
    for (slash, angles) in [(false, false), (true, false), (false, true), (true, true)] {
        add(each(value, |byte, out| match byte {
            b'<' | b'>' | b'&' if angles => {
                out.push_str("\\u00");
                hex(byte, LOWER, out);
            }
            byte => {
                if matches!(byte, b'"' | b'\\') || (byte == b'/' && slash) {
                    out.push('\\');
                }
                out.push(char::from(byte));
            }
        }));
    }
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        for before in 0..3 {
            add(inner(&engine, value, before));
        }
    }
    // What stands encoded already, as in `Basic`, is logged decoded by those it is meant for.
    let decoded = STANDARD_NO_PAD.decode(value.trim_end_matches('=')).map(Zeroizing::new);
    if let Some(text) = decoded.ok().as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok()) {
        // The part behind `user:` is the secret one. A line of a log never holds more than one of these.
        let password = text.split_once(':').map_or("", |(_, password)| password);
        text.lines().chain(password.lines()).for_each(|line| add(owned(line)));
    }
}

/// A form that is made byte by byte, each to six at most: it is never moved, so that no copy is left behind.
fn each(value: &str, write: impl Fn(u8, &mut String)) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(value.len() * 6));
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

    fn line(credentials: &Credentials, text: &str) -> String {
        String::from_utf8(credentials.redact(text.as_bytes(), 0..text.len())).unwrap()
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
        let value = "s3cr/t+val ue\"\\9<";
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
            "s3cr%2Ft%2Bval%20ue%22%5C9%3C".to_owned(),
            "s3cr%2ft%2bval+ue%22%5c9%3c".to_owned(),
            value.bytes().map(|byte| format!("{byte:02x}")).collect(),
            serde_json::to_string(value).unwrap(),
            serde_json::to_string(value).unwrap().replace('/', "\\/"),
            serde_json::to_string(value).unwrap().replace('<', "\\u003c"),
            serde_json::to_string(value).unwrap().replace('/', "\\/").replace('<', "\\u003c"),
        ];
        for echo in echoes {
            let line = line(&credentials, &format!("upstream said: {echo}!"));
            assert!(line.contains(BLOT), "{echo} gave {line}");
            assert!(!line.contains("3cr"), "{echo} gave {line}");
            let mut headers = HeaderMap::new();
            headers.insert("x-echo", HeaderValue::from_str(&format!("a {echo} b")).unwrap());
            credentials.redact_fields(&mut headers);
            assert!(headers["x-echo"].to_str().unwrap().contains(BLOT), "{echo} gave {headers:?}");
        }
        assert_eq!(line(&credentials, "nothing to see here"), "nothing to see here");
    }

    #[test]
    fn a_password_in_basic_form_is_blotted_out_decoded_too() {
        let credentials = with("authorization", &STANDARD.encode("user:correct horse")).unwrap();
        assert_eq!(line(&credentials, "login of user with correct horse"), "login of user with [redacted]");
        let credentials = with("authorization", &STANDARD.encode("first line\nsecond line")).unwrap();
        assert_eq!(line(&credentials, "first line\nor second line"), "[redacted]\nor [redacted]");
    }

    #[test]
    fn a_credential_is_found_in_the_surroundings_of_a_line_and_beside_another() {
        let credentials = with("authorization", "correct-horse").unwrap();
        let text = b"one correct-horse two";
        assert_eq!(credentials.longest(), "correct-horse".len() * 2, "hexadecimal is the longest of its forms");
        for cut in 5..17 {
            let (first, second) = (credentials.redact(text, 0..cut), credentials.redact(text, cut..text.len()));
            assert_eq!((first, second), (b"one [redacted]".to_vec(), b"[redacted] two".to_vec()), "{cut}");
        }
        assert_eq!(credentials.redact(text, 0..4), b"one ");
        assert_eq!(credentials.redact(text, 17..21), b" two");
        let two = ["abcdefgh", "efghijkl"].map(|value| Zeroizing::new(value.to_owned())).to_vec();
        let both = Credentials { rules: Vec::new(), forms: two };
        assert_eq!(line(&both, "-abcdefghijkl-"), "-[redacted]-");
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
