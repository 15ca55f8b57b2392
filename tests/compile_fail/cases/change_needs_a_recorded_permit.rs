// dies of E0308
use cofferdam_authz::Permit;
use cofferdam_control::Control;
use cofferdam_model::Manage;

pub fn unrecorded(control: &Control, permit: &Permit<Manage>) {
    let _ = control.apply(permit);
}
