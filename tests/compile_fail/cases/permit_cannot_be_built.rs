// dies of E0451
use cofferdam_authz::Permit;
use cofferdam_model::Manage;

pub fn forge(real: Permit<Manage>, operation: Manage) -> Permit<Manage> {
    Permit { operation, ..real }
}
