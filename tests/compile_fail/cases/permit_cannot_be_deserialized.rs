// dies of E0277
fn reads<T: for<'a> serde::Deserialize<'a>>() {}

pub fn forge() {
    reads::<cofferdam_authz::Permit<cofferdam_model::Invoke>>();
}
