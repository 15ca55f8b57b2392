//! How much policy text is looked at, judged before any of it is parsed.
//!
//! Owns the sizes, and a scan for depth. Found with cedar-policy 4.14: its parser overflows a stack of 2 MiB at a few
//! hundred nested brackets, and the process dies; its validator takes time that doubles with each nested `if` of a
//! constant, and lets a policy pass unvalidated when its own stack runs short. Must never be looser than what the
//! tests of this crate run on a stack of 1 MiB.

use crate::error::PolicyError;

/// Bytes of one policy text.
pub const POLICY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of all policy texts of a tenant.
pub const POLICIES_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Policies of one tenant: texts, and statements in them.
pub const POLICIES_MAX: usize = 12_000;
/// Brackets within brackets.
pub(crate) const NESTING_MAX: usize = 24;
/// Operators that can deepen an expression without a bracket, per statement.
pub(crate) const OPERATORS_MAX: usize = 200;
/// `if`s per statement.
pub(crate) const IFS_MAX: usize = 4;

pub(super) fn count(count: usize) -> Result<(), PolicyError> {
    if count > POLICIES_MAX { Err(PolicyError::TooMany { count, max: POLICIES_MAX }) } else { Ok(()) }
}

/// Whether a text is of a size and depth that can be parsed and validated safely. `before`: bytes of the tenant's
/// texts looked at so far.
pub(crate) fn text(name: &str, text: &str, before: usize) -> Result<(), PolicyError> {
    let too = |problem: String, remedy| Err(PolicyError::TooLarge { name: name.to_owned(), problem, remedy });
    if text.len() > POLICY_BYTES_MAX {
        return too(format!("{} bytes, at most {POLICY_BYTES_MAX} are looked at", text.len()), "split it");
    }
    if before.saturating_add(text.len()) > POLICIES_BYTES_MAX {
        return too(format!("all policies together exceed {POLICIES_BYTES_MAX} bytes"), "remove or shorten some");
    }
    let depth = Depth::of(text);
    if depth.brackets > NESTING_MAX {
        return too(format!("brackets nested deeper than {NESTING_MAX}"), "flatten it");
    }
    if depth.ifs > IFS_MAX {
        return too(format!("more than {IFS_MAX} `if`s in one statement"), "split it into several statements");
    }
    if depth.operators > OPERATORS_MAX {
        let problem = format!("more than {OPERATORS_MAX} operators in one statement");
        return too(problem, "split it into several statements, or list values in a set");
    }
    Ok(())
}

/// The deepest that any statement of a text can be.
#[derive(Default)]
struct Depth {
    brackets: usize,
    operators: usize,
    ifs: usize,
}

impl Depth {
    fn of(text: &str) -> Self {
        let (mut worst, mut brackets, mut operators, mut ifs) = (Self::default(), 0usize, 0usize, 0usize);
        let mut bytes = text.bytes().peekable();
        let mut word = Vec::new();
        while let Some(byte) = bytes.next() {
            if byte.is_ascii_alphanumeric() || byte == b'_' {
                word.push(byte);
                continue;
            }
            ifs += usize::from(word == b"if");
            word.clear();
            match byte {
                b'"' => skip_string(&mut bytes),
                b'/' if bytes.peek() == Some(&b'/') => while bytes.next().is_some_and(|byte| byte != b'\n') {},
                b'(' | b'[' | b'{' => brackets += 1,
                b')' | b']' | b'}' => brackets = brackets.saturating_sub(1),
                b'.' | b'!' | b'+' | b'-' | b'*' => operators += 1,
                b'&' | b'|' if bytes.peek() == Some(&byte) => {
                    bytes.next();
                    operators += 1;
                }
                b';' => (operators, ifs) = (0, 0),
                _ => {}
            }
            worst.brackets = worst.brackets.max(brackets);
            worst.operators = worst.operators.max(operators);
            worst.ifs = worst.ifs.max(ifs);
        }
        worst
    }
}

/// Goes past the closing quote; a text that lacks one is not a policy anyway.
fn skip_string(bytes: &mut impl Iterator<Item = u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_that_of_the_deepest_statement_and_not_of_strings_or_comments() {
        let text = r#"
            permit (principal, action, resource) when { ((principal.id == "((((\"((")) }; // ((((((((
            forbid (principal, action, resource) when { if a.b.c && d || !e then [1] else [2] };
        "#;
        let depth = Depth::of(text);
        assert_eq!((depth.brackets, depth.operators, depth.ifs), (3, 5, 1));
    }
}
