//! Why a component is not taken: a stable code, and a sentence for whoever uploaded it.
//!
//! Owns the codes. Must never hold more of the component's own text than a bounded piece.

/// Most bytes of a message: it may quote what the tenant wrote.
const MESSAGE_BYTES: usize = 1024;

/// A component that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Announced longer than allowed.
    #[error("the component is `{0}` bytes long, more than the `{1}` allowed")]
    TooLarge(u64, u64),
    /// Ended before its announced length, or went on after it.
    #[error("the component is not as long as announced")]
    Length,
    /// Machine code made elsewhere.
    #[error("this is precompiled code; upload the component itself")]
    Precompiled,
    /// Not WebAssembly.
    #[error("this is not a WebAssembly component")]
    NotWasm,
    /// A core module.
    #[error(
        "this is a core module, not a component; build for wasm32-wasip2, or wrap it with `wasm-tools component new`"
    )]
    CoreModule,
    /// Invalid, or using a proposal that is switched off.
    #[error("the component is not valid here: {0}")]
    Invalid(String),
    /// Nothing to call.
    #[error("the component exports no `wasi:http/incoming-handler@0.2`")]
    NoHandler,
    /// Wants to be handed code.
    #[error("the component imports a core module or component, which is never given")]
    ImportsCode,
    /// Wants what no host here gives.
    #[error("the component imports `{0}`; a function can import interfaces of WASI 0.2 alone")]
    UnknownImport(String),
    /// Consists of too much.
    #[error("the component needs `{needed}` {what}, more than the `{allowed}` allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many it needs.
        needed: u64,
        /// How many it may have.
        allowed: u64,
    },
    /// Valid, but the compiler could not do it.
    #[error("the component cannot be compiled: {0}")]
    Compile(String),
}

impl Refusal {
    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(..) => "component_too_large",
            Self::Length => "component_truncated",
            Self::Precompiled => "component_precompiled",
            Self::NotWasm => "component_not_wasm",
            Self::CoreModule => "component_core_module",
            Self::Invalid(_) => "component_invalid",
            Self::NoHandler => "component_no_handler",
            Self::ImportsCode => "component_imports_code",
            Self::UnknownImport(_) => "component_unknown_import",
            Self::TooMany { .. } => "component_too_complex",
            Self::Compile(_) => "component_not_compilable",
        }
    }

    /// The sentence, bounded and without control characters.
    pub(crate) fn message(&self) -> String {
        let mut text: String = self.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        while text.len() > MESSAGE_BYTES {
            text.pop();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_bounded_and_carries_no_control_characters() {
        let message = Refusal::Invalid("\x1b[31m\n".repeat(1000)).message();
        assert!(message.len() <= MESSAGE_BYTES);
        assert!(!message.chars().any(char::is_control));
    }
}
