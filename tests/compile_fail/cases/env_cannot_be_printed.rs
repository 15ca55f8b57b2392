// dies of E0277
pub fn leak(env: cofferdam_model::Env) -> String {
    format!("{env:?}")
}
