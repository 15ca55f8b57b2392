//! Makes bytes from strangers harmless to look at.
//!
//! Owns the one way this is done here. What comes out is a single line of UTF-8 without control characters, from
//! which the bytes that went in can be told.

use std::fmt::Write;

/// Appends `bytes` to `out`, escaped.
pub(crate) fn escape_into(bytes: &[u8], out: &mut String) {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if is_harmless(character) {
                out.push(character);
            } else if character == '\\' {
                out.push_str("\\\\");
            } else if character == '\t' {
                out.push_str("\\t");
            } else {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(character));
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
}

/// `bytes` as one harmless line.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    escape_into(bytes, &mut out);
    out
}

/// Neither a control character, nor one that breaks lines, turns the direction of writing or cannot be seen.
fn is_harmless(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\\' | '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}
