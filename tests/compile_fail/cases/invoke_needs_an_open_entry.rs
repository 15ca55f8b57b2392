// dies of E0308
use cofferdam_authz::Permit;
use cofferdam_model::frame::RequestHead;
use cofferdam_model::Invoke;
use cofferdam_sandbox::{Deployment, InboundBody, Sandbox};

pub async fn unrecorded(
    sandbox: &Sandbox,
    permit: &mut Permit<Invoke>,
    deployment: &Deployment,
    head: RequestHead,
    body: InboundBody,
) {
    let _ = sandbox.invoke(permit, deployment, head, body).await;
}
