// dies of E0382
use cofferdam_audit::Entry;
use cofferdam_authz::Permit;
use cofferdam_model::{Invoke, Reply};

pub async fn twice<R: Reply>(entry: Entry<Permit<Invoke>>, one: R, two: R) {
    let _ = entry.close(one).await;
    let _ = entry.close(two).await;
}
