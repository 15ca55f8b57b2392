//! When an answer carries a receipt: what its caller can have a proof for later.
//!
//! Owns the field and who may ask for it. Must never give one for what is not durably recorded.

use http::{HeaderMap, HeaderName};
use serde::Deserialize;

/// Of an answer: the receipt. Of a request: `?1` asks for one.
pub(crate) const RECEIPT: HeaderName = HeaderName::from_static("cofferdam-receipt");
const YES: &str = "?1";

/// When answers carry receipts, where a route does not say so by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Receipts {
    /// Never.
    Never,
    /// Where a caller who is known asks for one.
    #[default]
    Asked,
    /// Where the caller is known.
    Always,
}

impl Receipts {
    /// Whether a request is to have one, if its caller is known.
    pub(crate) fn asked_by(self, headers: &HeaderMap) -> bool {
        match self {
            Self::Never => false,
            Self::Asked => headers.get(RECEIPT).is_some_and(|value| value == YES),
            Self::Always => true,
        }
    }
}
