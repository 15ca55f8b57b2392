// dies of E0277
fn copies<T: Clone>() {}

pub fn forge() {
    copies::<cofferdam_authz::Permit<cofferdam_model::Invoke>>();
}
