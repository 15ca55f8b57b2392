//! What was enforced, layer by layer, in words an operator can act on.
//!
//! Owns the names of the layers, the remedies for missing ones and the sum of it all as an isolation level. Must
//! never call a layer on that was not seen to take effect.

use std::fmt::Display;

use cofferdam_model::Isolation;
use serde::Serialize;

macro_rules! layers {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $remedy:literal;)*) => {
        /// One layer of the jail, in the order they are put on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
        pub enum LayerName { $($(#[$doc])* #[serde(rename = $text)] $name,)* }

        impl LayerName {
            /// The whole list.
            pub const ALL: &'static [LayerName] = &[$(LayerName::$name,)*];

            /// The name in reports.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What an operator can do to have it.
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }
        }
    };
}

layers! {
    /// Only the descriptors meant for the process are open.
    Descriptors = "descriptors", "use Linux 5.9 or newer";
    /// Runs as an ordinary user without groups; where root starts it, as one that is nobody else.
    Identity = "identity", "start the service as an ordinary user, or as root with CAP_SETUID and CAP_SETGID and, in a \
                            container, with ids from 2000000000 to 2004194304 mapped";
    /// Own user namespace, in which one powerless id is mapped.
    UserNamespace = "user_namespace",
        "sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces=1024 and, on Ubuntu, \
         kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor profile with `userns`; in a container: a \
         seccomp profile that allows unshare";
    /// Own mount namespace.
    MountNamespace = "mount_namespace", "as for user_namespace";
    /// Own network namespace with nothing in it.
    NetworkNamespace = "network_namespace", "as for user_namespace; user.max_net_namespaces must not be 0";
    /// Own System V and POSIX message queue namespace.
    IpcNamespace = "ipc_namespace", "as for user_namespace";
    /// Own host name.
    UtsNamespace = "uts_namespace", "as for user_namespace";
    /// Own view of cgroups.
    CgroupNamespace = "cgroup_namespace", "as for user_namespace";
    /// Sees no process but itself.
    PidNamespace = "pid_namespace", "as for user_namespace; user.max_pid_namespaces must not be 0";
    /// The root directory is empty and read-only.
    EmptyRoot = "empty_root", "as for user_namespace; in a container: an AppArmor profile that allows mount";
    /// No capability, and no way to regain one.
    Capabilities = "capabilities", "as for user_namespace";
    /// Executing a file can never raise privileges.
    NoNewPrivileges = "no_new_privileges", "use Linux 3.5 or newer";
    /// Memory can neither be dumped nor traced.
    NotDumpable = "not_dumpable", "use Linux 2.4 or newer without a filter on prctl";
    /// Dies with its guardian.
    DeathSignal = "death_signal", "use Linux 5.3 or newer (pidfd)";
    /// Resource limits.
    Limits = "limits", "as for user_namespace: the process count is limited per user namespace";
    /// No file, port, abstract socket or outside process may be reached, whatever the namespaces say.
    Landlock = "landlock", "boot a kernel of 5.13 or newer with `landlock` in the lsm= list";
    /// Every system call not on the list kills the process.
    Seccomp = "seccomp", "use a kernel with CONFIG_SECCOMP_FILTER; in a container: a profile that allows seccomp";
}

/// Whether a layer is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// In full.
    On,
    /// In part.
    Reduced,
    /// Not at all.
    Off,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Reduced => "reduced",
            Self::Off => "off",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::On, Self::Reduced, Self::Off].into_iter().find(|state| state.as_str() == text)
    }
}

/// One layer and how it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// Which.
    pub name: LayerName,
    /// How far it is there.
    pub state: State,
    /// What exactly is there, or why it is not.
    pub why: String,
    /// What would bring it; only where something is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

/// Something about the host that weakens or strengthens every jail on it. Advice: no part of the isolation level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostCheck {
    /// What was looked at.
    pub name: &'static str,
    /// Whether it is as it should be. Nothing where it cannot be known.
    pub good: Option<bool>,
    /// What was found.
    pub found: String,
    /// What to do about it; only where it is not good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

/// Everything that is known about a jail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The layers, in the order they were put on.
    pub layers: Vec<Layer>,
    /// The host around it; only filled by [`crate::probe`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host: Vec<HostCheck>,
}

impl Report {
    /// The layers summed up: full when all are on; reduced when the network namespace, no_new_privs and the syscall
    /// filter are; minimal below that. An older kernel's Landlock counts as on beside all the others: the ports,
    /// abstract sockets and signals it does not know are out of reach in the network and pid namespaces already.
    pub fn isolation(&self) -> Isolation {
        let on = |name| match self.state(name) {
            State::On => true,
            State::Reduced => name == LayerName::Landlock,
            State::Off => false,
        };
        let needed = [LayerName::NetworkNamespace, LayerName::NoNewPrivileges, LayerName::Seccomp];
        if LayerName::ALL.iter().all(|name| on(*name)) {
            Isolation::Full
        } else if needed.into_iter().all(on) {
            Isolation::Reduced
        } else {
            Isolation::Minimal
        }
    }

    /// How far one layer is there; one never spoken of is off.
    pub fn state(&self, name: LayerName) -> State {
        self.layers.iter().find(|layer| layer.name == name).map_or(State::Off, |layer| layer.state)
    }

    pub(crate) fn add(&mut self, name: LayerName, state: State, why: impl Display) {
        let remedy = (state != State::On).then(|| name.remedy());
        self.layers.push(Layer { name, state, why: why.to_string(), remedy });
    }

    pub(crate) fn on(&mut self, name: LayerName, why: impl Display) {
        self.add(name, State::On, why);
    }

    pub(crate) fn off(&mut self, name: LayerName, why: impl Display) {
        self.add(name, State::Off, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_on_but(missing: &[LayerName]) -> Report {
        let mut report = Report::default();
        for name in LayerName::ALL {
            report.add(*name, if missing.contains(name) { State::Off } else { State::On }, "test");
        }
        report
    }

    #[test]
    fn isolation_is_full_only_with_every_layer() {
        assert_eq!(all_on_but(&[]).isolation(), Isolation::Full);
        for name in LayerName::ALL {
            assert_ne!(all_on_but(&[*name]).isolation(), Isolation::Full, "without {name:?}");
        }
        assert_eq!(Report::default().isolation(), Isolation::Minimal);
    }

    #[test]
    fn isolation_is_minimal_without_network_namespace_or_filter() {
        assert_eq!(all_on_but(&[LayerName::EmptyRoot]).isolation(), Isolation::Reduced);
        assert_eq!(all_on_but(&[LayerName::NetworkNamespace]).isolation(), Isolation::Minimal);
        assert_eq!(all_on_but(&[LayerName::NoNewPrivileges]).isolation(), Isolation::Minimal);
        assert_eq!(all_on_but(&[LayerName::Seccomp]).isolation(), Isolation::Minimal);
    }

    #[test]
    fn a_missing_layer_comes_with_a_remedy() {
        let report = all_on_but(&[LayerName::Landlock]);
        for layer in report.layers {
            assert_eq!(layer.remedy.is_some(), layer.name == LayerName::Landlock);
        }
    }
}
