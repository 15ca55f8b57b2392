//! How the closed list of actions is made: once, for the type, its names and the whole of it.
//!
//! Owns the macro. Must never let an action be in one of these and not in the others.

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Every action there is, as policies and the log name it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum Action { $($(#[$doc])* $name,)* }

        impl Action {
            /// The whole catalogue.
            pub const ALL: &'static [Action] = &[$(Action::$name,)*];

            /// The name in policies and records.
            pub fn as_str(self) -> &'static str {
                match self { $(Action::$name => stringify!($name),)* }
            }
        }
    };
}

pub(super) use actions;
