//! Canonical JSON, written straight into a record's buffer.
//!
//! Owns the one form a record can have: keys in ascending order, no white space, whole numbers, text escaped so
//! that it is printable and cut to a bounded length. Must never fail: whatever a client sent, there is a record.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Bytes the longest mark left by a cut can take: `...(+18446744073709551615 bytes)`.
const MARK_BYTES: usize = 32;

/// An object being written. Its keys must come in ascending order.
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    last: &'static str,
}

impl<'a> Object<'a> {
    pub(crate) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, last: "" }
    }

    pub(crate) fn end(self) {
        self.out.push(b'}');
    }

    pub(crate) fn text(&mut self, key: &'static str, value: &str, max: usize) {
        self.key(key);
        text(self.out, value, max);
    }

    pub(crate) fn maybe_text(&mut self, key: &'static str, value: Option<&str>, max: usize) {
        if let Some(value) = value {
            self.text(key, value, max);
        }
    }

    pub(crate) fn number(&mut self, key: &'static str, value: u64) {
        self.key(key);
        number(self.out, value);
    }

    pub(crate) fn flag(&mut self, key: &'static str, value: bool) {
        self.key(key);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// Something of ours whose text is short and needs no escape: an address.
    pub(crate) fn shown(&mut self, key: &'static str, value: impl std::fmt::Display) {
        self.key(key);
        text(self.out, &value.to_string(), 128);
    }

    pub(crate) fn base64(&mut self, key: &'static str, bytes: &[u8]) {
        self.key(key);
        text(self.out, &STANDARD.encode(bytes), 128);
    }

    pub(crate) fn hex(&mut self, key: &'static str, bytes: &[u8]) {
        self.key(key);
        self.out.push(b'"');
        for byte in bytes {
            self.out.extend_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
        self.out.push(b'"');
    }

    /// A list of texts, at most `most` of them; a cut leaves a mark as last item.
    pub(crate) fn texts(&mut self, key: &'static str, values: &[String], most: usize, max: usize) {
        self.key(key);
        self.out.push(b'[');
        for (place, value) in values.iter().enumerate().take(most) {
            if place > 0 {
                self.out.push(b',');
            }
            text(self.out, value, max);
        }
        if let Some(more) = values.len().checked_sub(most).filter(|more| *more > 0) {
            self.out.extend_from_slice(b",\"...(+");
            number(self.out, more as u64);
            self.out.extend_from_slice(b" more)\"");
        }
        self.out.push(b']');
    }

    pub(crate) fn object(&mut self, key: &'static str, fill: impl FnOnce(&mut Object<'_>)) {
        self.key(key);
        let mut inner = Object::begin(self.out);
        fill(&mut inner);
        inner.end();
    }

    fn key(&mut self, key: &'static str) {
        debug_assert!(self.last < key, "`{key}` written after `{}`", self.last);
        if !self.last.is_empty() {
            self.out.push(b',');
        }
        self.last = key;
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut used = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        used += 1;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// Writes `value` so that it takes at most `max` bytes between its quotes, the mark of a cut included.
fn text(out: &mut Vec<u8>, value: &str, max: usize) {
    out.push(b'"');
    if value.len() <= max && value.bytes().all(is_plain) {
        out.extend_from_slice(value.as_bytes());
    } else {
        escaped(out, value, max);
    }
    out.push(b'"');
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

fn escaped(out: &mut Vec<u8>, value: &str, max: usize) {
    let start = out.len();
    // Where to fall back to, should the whole not fit: as much as leaves room for the mark.
    let mut fallback = (start, 0);
    for (at, c) in value.char_indices() {
        if out.len() - start <= max.saturating_sub(MARK_BYTES) {
            fallback = (out.len(), at);
        }
        escape(out, c);
        if out.len() - start > max {
            let (keep, from) = fallback;
            out.truncate(keep);
            out.extend_from_slice(b"...(+");
            number(out, (value.len() - from) as u64);
            out.extend_from_slice(b" bytes)");
            return;
        }
    }
}

/// Escapes what JSON demands, and whatever could move a cursor or turn text around on a reader's screen.
fn escape(out: &mut Vec<u8>, c: char) {
    match c {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        c if c.is_control() || is_deceiving(c) => {
            let mut units = [0u16; 2];
            for unit in c.encode_utf16(&mut units) {
                out.extend_from_slice(b"\\u");
                for byte in unit.to_be_bytes() {
                    out.extend_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
                }
            }
        }
        c => out.extend_from_slice(c.encode_utf8(&mut [0u8; 4]).as_bytes()),
    }
}

fn is_deceiving(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || matches!(c, '\u{61c}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &str, max: usize) -> String {
        let mut out = Vec::new();
        text(&mut out, value, max);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn any_text_comes_back_as_it_was() {
        let screen = "\0\u{7f}\u{9b}\u{1b}[2J\r\n\t";
        for value in ["", "plain", "a\"b\\c", screen, "\u{202e}evil", "héé\u{1f600}\u{e0041}"] {
            let json = written(value, 4096);
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), value);
            assert!(!json.chars().any(|c| c.is_control() || is_deceiving(c)), "{json}");
        }
    }

    #[test]
    fn overlong_text_is_cut_with_a_mark_and_stays_within_its_bound() {
        for value in ["x".repeat(500), "\u{1}".repeat(500), "é".repeat(500), "\u{e0041}".repeat(500)] {
            for max in [0, 31, 32, 33, 64, 100, 499] {
                let json = written(&value, max);
                let read: String = serde_json::from_str(&json).unwrap();
                let (kept, mark) = read.split_once("...(+").unwrap();
                let cut: usize = mark.strip_suffix(" bytes)").unwrap().parse().unwrap();
                assert_eq!(kept.len() + cut, value.len());
                assert!(value.starts_with(kept));
                assert!(json.len() - 2 <= max.max(MARK_BYTES), "{max}: {}", json.len());
            }
        }
        assert_eq!(written(&"x".repeat(40), 40), format!("\"{}\"", "x".repeat(40)));
    }

    #[test]
    fn numbers_and_lists_are_written_whole() {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        object.number("a", 0);
        object.number("b", u64::MAX);
        object.texts("c", &["x".into(), "y".into(), "z".into()], 2, 9);
        object.flag("d", true);
        object.hex("e", &[0, 0xff, 0x3a]);
        object.end();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, r#"{"a":0,"b":18446744073709551615,"c":["x","y","...(+1 more)"],"d":true,"e":"00ff3a"}"#);
    }
}
