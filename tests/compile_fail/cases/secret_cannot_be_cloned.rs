// dies of E0277
fn copies<T: Clone>() {}

pub fn leak() {
    copies::<cofferdam_model::SecretValue>();
}
