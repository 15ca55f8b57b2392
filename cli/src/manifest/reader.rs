//! Reading TOML so that whatever is wrong is said with its place and what to write instead.
//!
//! Owns spans, unknown keys and types. Must never know what a manifest means.

use std::ops::Range;

use toml_edit::{Array, Item, TableLike, Value};

/// Something wrong at a place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) span: Range<usize>,
    pub(crate) message: String,
    pub(crate) remedy: String,
}

impl Wrong {
    pub(crate) fn new(span: Range<usize>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { span, message: message.into(), remedy: remedy.into() }
    }
}

/// A value with its place.
#[derive(Debug, Clone)]
pub(crate) struct Spanned<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

impl<T> Spanned<T> {
    /// Turns the value into something else, or says at its place why not.
    pub(crate) fn try_map<U>(
        self,
        what: &str,
        into: impl FnOnce(&T) -> Result<U, String>,
    ) -> Result<Spanned<U>, Wrong> {
        match into(&self.value) {
            Ok(value) => Ok(Spanned { value, span: self.span }),
            Err(remedy) => Err(Wrong::new(self.span, format!("{what} is not valid"), remedy)),
        }
    }
}

/// A key and the text under it.
pub(crate) type Entry = (Spanned<String>, Spanned<String>);

/// A table being read.
pub(crate) struct Table<'a> {
    items: &'a dyn TableLike,
    /// How the table is named in messages, such as `[app]`.
    name: String,
    /// Where it is, for what is missing from it.
    pub(crate) span: Range<usize>,
}

impl<'a> Table<'a> {
    pub(crate) fn new(items: &'a dyn TableLike, name: impl Into<String>, span: Range<usize>) -> Self {
        Self { items, name: name.into(), span }
    }

    fn get(&self, key: &'static str) -> Option<(Range<usize>, &'a Item)> {
        let (found, item) = self.items.get_key_value(key)?;
        let span = item.span().or_else(|| found.span()).unwrap_or_else(|| self.span.clone());
        Some((span, item))
    }

    fn wrong_type(&self, key: &str, span: Range<usize>, found: &Item, wanted: &str) -> Wrong {
        let message = format!("`{key}` of {} is {}", self.name, article(found.type_name()));
        Wrong::new(span, message, format!("write {wanted}"))
    }

    /// A text.
    pub(crate) fn text(&self, key: &'static str) -> Result<Option<Spanned<String>>, Wrong> {
        let Some((span, item)) = self.get(key) else { return Ok(None) };
        match item.as_str() {
            Some(text) => Ok(Some(Spanned { value: text.to_owned(), span })),
            None => Err(self.wrong_type(key, span, item, "a text in quotes")),
        }
    }

    /// A text that must be there.
    pub(crate) fn need_text(&self, key: &'static str) -> Result<Spanned<String>, Wrong> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    /// A whole number that is not negative.
    pub(crate) fn number(&self, key: &'static str) -> Result<Option<Spanned<u64>>, Wrong> {
        let Some((span, item)) = self.get(key) else { return Ok(None) };
        match item.as_integer().and_then(|number| u64::try_from(number).ok()) {
            Some(value) => Ok(Some(Spanned { value, span })),
            None => Err(self.wrong_type(key, span, item, "a whole number, 0 or more")),
        }
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self, key: &'static str) -> Result<Option<Spanned<bool>>, Wrong> {
        let Some((span, item)) = self.get(key) else { return Ok(None) };
        match item.as_bool() {
            Some(value) => Ok(Some(Spanned { value, span })),
            None => Err(self.wrong_type(key, span, item, "`true` or `false`")),
        }
    }

    /// A list of texts.
    pub(crate) fn texts(&self, key: &'static str) -> Result<Vec<Spanned<String>>, Wrong> {
        let Some((span, item)) = self.get(key) else { return Ok(Vec::new()) };
        let wanted = "a list of texts in quotes, as in `[\"a\", \"b\"]`";
        let array: &Array = item.as_array().ok_or_else(|| self.wrong_type(key, span.clone(), item, wanted))?;
        let each = |value: &Value| {
            let at = value.span().unwrap_or_else(|| span.clone());
            match value.as_str() {
                Some(text) => Ok(Spanned { value: text.to_owned(), span: at }),
                None => {
                    Err(Wrong::new(at, format!("`{key}` of {} lists something else than texts", self.name), wanted))
                }
            }
        };
        array.iter().map(each).collect()
    }

    /// A table inside this one.
    pub(crate) fn table(&self, key: &'static str) -> Result<Option<Table<'a>>, Wrong> {
        let Some((span, item)) = self.get(key) else { return Ok(None) };
        match item.as_table_like() {
            Some(items) => Ok(Some(Table::new(items, self.named(key), span))),
            None => Err(self.wrong_type(key, span, item, &format!("a table, as in `[{key}]` or `{key} = {{ .. }}`"))),
        }
    }

    /// A table inside this one that must be there.
    pub(crate) fn need_table(&self, key: &'static str) -> Result<Table<'a>, Wrong> {
        self.table(key)?.ok_or_else(|| self.missing(key))
    }

    /// The tables of a list written `[[key]]`.
    pub(crate) fn tables(&self, key: &'static str) -> Result<Vec<Table<'a>>, Wrong> {
        let Some((span, item)) = self.get(key) else { return Ok(Vec::new()) };
        let name = format!("[[{key}]]");
        if let Some(tables) = item.as_array_of_tables() {
            let each = |table: &'a toml_edit::Table| {
                let at = table.span().unwrap_or_else(|| span.clone());
                Table::new(table, name.clone(), at)
            };
            return Ok(tables.iter().map(each).collect());
        }
        let inline = |value: &'a Value| {
            let at = value.span().unwrap_or_else(|| span.clone());
            value.as_inline_table().map(|table| Table::new(table, name.clone(), at))
        };
        let all = item.as_array().and_then(|array| array.iter().map(inline).collect::<Option<Vec<_>>>());
        all.ok_or_else(|| self.wrong_type(key, span.clone(), item, &format!("it as `{name}`, once for each")))
    }

    /// Every key of this table with the table under it: for tables whose keys are names.
    pub(crate) fn named_tables(&self) -> Result<Vec<(Spanned<String>, Table<'a>)>, Wrong> {
        self.entries()
            .map(|(key, item)| match item.as_table_like() {
                Some(items) => {
                    let span = item.span().unwrap_or_else(|| key.span.clone());
                    let name = self.named(&key.value);
                    Ok((key, Table::new(items, name, span)))
                }
                None => {
                    let wanted = format!("a table, as in `[{}]`", self.named(&key.value).trim_matches(['[', ']']));
                    Err(self.wrong_type(&key.value, key.span.clone(), item, &wanted))
                }
            })
            .collect()
    }

    /// Every key of this table with the text under it: for tables whose keys are names.
    pub(crate) fn named_texts(&self) -> Result<Vec<Entry>, Wrong> {
        self.entries()
            .map(|(key, item)| {
                let span = item.span().unwrap_or_else(|| key.span.clone());
                match item.as_str() {
                    Some(text) => Ok((key, Spanned { value: text.to_owned(), span })),
                    None => Err(self.wrong_type(&key.value, span, item, "a text in quotes")),
                }
            })
            .collect()
    }

    fn entries(&self) -> impl Iterator<Item = (Spanned<String>, &'a Item)> {
        self.items.iter().map(|(name, item)| {
            let key = self.items.get_key_value(name).and_then(|(key, _)| key.span());
            (Spanned { value: name.to_owned(), span: key.unwrap_or_else(|| self.span.clone()) }, item)
        })
    }

    fn named(&self, key: &str) -> String {
        match self.name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(outer) => format!("[{outer}.{key}]"),
            None => format!("[{key}]"),
        }
    }

    pub(crate) fn missing(&self, key: &str) -> Wrong {
        Wrong::new(self.span.clone(), format!("{} has no `{key}`", self.name), format!("add `{key}`"))
    }

    /// Refuses every key but these. Asked before any is read: a misspelt key is better told than one that is missing.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), Wrong> {
        let Some((key, _)) = self.items.iter().find(|(key, _)| !known.contains(key)) else { return Ok(()) };
        let span = self.items.get_key_value(key).and_then(|(key, _)| key.span());
        let message = format!("unknown key `{key}` in {}", self.name);
        Err(Wrong::new(span.unwrap_or_else(|| self.span.clone()), message, did_you_mean(key, known)))
    }
}

/// What was probably meant, or what could have been.
pub(crate) fn did_you_mean(given: &str, known: &[&str]) -> String {
    let near = known.iter().map(|name| (distance(given, name), *name)).min();
    match near {
        Some((distance, name)) if distance <= 1 + name.len() / 4 => format!("did you mean `{name}`?"),
        _ if known.is_empty() => "remove it".to_owned(),
        _ => format!("known here: {}", known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    }
}

/// Letters to add, drop or change to get from one to the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    // A key may be as long as the file; what is that far off is no misspelling.
    for (i, a) in one.chars().take(64).enumerate() {
        let mut next = vec![i + 1];
        for ((b, above), diagonal) in other.iter().zip(row.iter().skip(1)).zip(&row) {
            let left = next.last().copied().unwrap_or_default();
            next.push((diagonal + usize::from(a != *b)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

fn article(type_name: &str) -> String {
    let vowel = type_name.starts_with(['a', 'e', 'i', 'o']);
    format!("{} {type_name}", if vowel { "an" } else { "a" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspellings_find_what_was_meant() {
        assert_eq!(did_you_mean("sorce", &["source", "limits"]), "did you mean `source`?");
        assert_eq!(did_you_mean("fonction", &["function", "host"]), "did you mean `function`?");
        assert_eq!(did_you_mean("zzz", &["host", "path"]), "known here: `host`, `path`");
        assert_eq!(did_you_mean("x", &[]), "remove it");
        assert_eq!((distance("", "abc"), distance("abc", ""), distance("abc", "abc")), (3, 3, 0));
    }
}
