//! Conditions as they are put together.
//!
//! Owns the constants among them, so that what never or always holds is not written down. Must never say of two
//! approximations that they are one: the side each may err to is told by whoever makes it.

use crate::explain::quoted;

/// To which side an approximation may err.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// It may fail to hold where it should.
    Under,
    /// It may hold where it should not.
    Over,
}

impl Side {
    /// That of something whose negation is to be approached from this one.
    pub(super) fn flipped(self) -> Self {
        match self {
            Self::Under => Self::Over,
            Self::Over => Self::Under,
        }
    }
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    Never,
    Always,
    /// Cedar text that can stand as an operand.
    Is(String),
}

impl Test {
    /// Whether all hold. Each is only looked at where those before it hold.
    pub(super) fn all(tests: Vec<Self>) -> Self {
        Self::joined(tests, " && ", &Self::Always, &Self::Never)
    }

    /// Whether any holds.
    pub(super) fn any(tests: Vec<Self>) -> Self {
        Self::joined(tests, " || ", &Self::Never, &Self::Always)
    }

    fn joined(tests: Vec<Self>, by: &str, neutral: &Self, final_: &Self) -> Self {
        let mut texts = Vec::new();
        for test in tests {
            match test {
                test if test == *final_ => return test,
                Self::Is(text) if !texts.contains(&text) => texts.push(text),
                _ => {}
            }
        }
        match texts.len() {
            0 => neutral.clone(),
            1 => Self::Is(texts.concat()),
            _ => Self::Is(format!("({})", texts.join(by))),
        }
    }

    pub(super) fn not(self) -> Self {
        match self {
            Self::Never => Self::Always,
            Self::Always => Self::Never,
            Self::Is(text) => Self::Is(format!("!({text})")),
        }
    }

    /// Whether something has one of these values.
    pub(super) fn one_of(what: &str, values: &[String]) -> Self {
        match values {
            [] => Self::Never,
            [one] => Self::Is(format!("{what} == {}", quoted(one))),
            several => Self::Is(format!("{}.contains({what})", set(several))),
        }
    }
}

/// A set of texts as Cedar writes it.
pub(super) fn set(values: &[String]) -> String {
    let values: Vec<_> = values.iter().map(|value| quoted(value)).collect();
    format!("[{}]", values.join(", "))
}
