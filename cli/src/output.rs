//! What a command says when it worked.
//!
//! Owns standard output: one JSON value with `--json`, lines for people without. Everything else goes to standard
//! error. Must never mix the two.

use std::io::{ErrorKind, Write};

use serde_json::Value;

use crate::failure::Failure;

/// How results are told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    /// Tells a result: `value` to programs, `lines` to people.
    pub(crate) fn result(self, value: &Value, lines: impl FnOnce() -> Vec<String>) -> Result<(), Failure> {
        if self.json {
            return self.bytes(format!("{value}\n").as_bytes());
        }
        let mut text = lines().join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        self.bytes(text.as_bytes())
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        // Where whoever reads us has seen enough, like `head`, that is fine.
        self.stream(bytes).map(|_| ())
    }

    /// Writes bytes as they are; says whether somebody still reads.
    pub(crate) fn stream(self, bytes: &[u8]) -> Result<bool, Failure> {
        let mut out = std::io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::internal(format!("cannot write to standard output: {error}"))),
            Ok(()) => Ok(true),
        }
    }

    /// Tells people something beside the result.
    pub(crate) fn note(self, text: &str) {
        if !self.json {
            // Nowhere is left to say that standard error is gone.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }
}

/// Columns as wide as their widest cell.
pub(crate) fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| rows.iter().filter_map(|row| row.get(column)).map(|cell: &String| cell.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// A member of a JSON object as people read it.
pub(crate) fn text(value: &Value, name: &str) -> String {
    match value.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "-".to_owned(),
        Some(Value::Array(items)) => {
            let plain = |item: &Value| item.as_str().map_or_else(|| item.to_string(), str::to_owned);
            items.iter().map(plain).collect::<Vec<_>>().join(",")
        }
        Some(other) => other.to_string(),
    }
}

/// The members of an array inside a JSON object.
pub(crate) fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["long".to_owned(), "c".to_owned()]];
        assert_eq!(table(&rows), ["a     b", "long  c"]);
    }
}
