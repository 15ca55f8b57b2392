// dies of E0277
fn copies<T: Clone>() {}

pub fn forge() {
    copies::<cofferdam_audit::Recorded<u8>>();
}
