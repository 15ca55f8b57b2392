// dies of E0277
fn makes<T: Default>() {}

pub fn forge() {
    makes::<cofferdam_authz::Principal>();
}
