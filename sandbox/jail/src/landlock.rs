//! Landlock: a second lock on files, ports, abstract sockets and other processes, that needs no privilege.
//!
//! Owns one ruleset: everything the kernel can handle is handled, and nothing is allowed. Must never contain an
//! exception.

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, RestrictionStatus, Ruleset, RulesetAttr, RulesetError,
    RulesetStatus, Scope,
};

use crate::report::{LayerName, Report, State};

/// The newest version whose restrictions are all asked for; an older kernel enforces what it knows.
const WANTED: ABI = ABI::V6;

pub(crate) fn deny_all(report: &mut Report) {
    let status = match restrict() {
        Ok(status) => status,
        Err(error) => return report.off(LayerName::Landlock, error),
    };
    let version = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => format!("kernel offers {effective_abi:?}"),
        LandlockStatus::NotEnabled => "built into the kernel but not enabled".into(),
        LandlockStatus::NotImplemented => "not built into the kernel".into(),
    };
    match status.ruleset {
        RulesetStatus::FullyEnforced => report.on(LayerName::Landlock, version),
        RulesetStatus::PartiallyEnforced => report.add(LayerName::Landlock, State::Reduced, version),
        RulesetStatus::NotEnforced => report.off(LayerName::Landlock, version),
    }
}

fn restrict() -> Result<RestrictionStatus, RulesetError> {
    Ruleset::default()
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::from_all(WANTED))?
        .scope(Scope::from_all(WANTED))?
        .create()?
        .restrict_self()
}
