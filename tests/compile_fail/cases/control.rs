use cofferdam_audit::{Entry, Recorded};
use cofferdam_authz::{Permit, Principal};
use cofferdam_model::{Env, Invoke, Manage, SecretValue};

pub fn all_names_are_there(
    _: &Permit<Invoke>,
    _: &Principal,
    _: &Recorded<&Permit<Manage>>,
    _: &Entry<Permit<Invoke>>,
    _: &Env,
    _: &SecretValue,
) {
}
