//! The keys of subjects as the log asks for them.
//!
//! Owns when a key is waited for. Must never wait for anybody over a network: a key that would take that is had at hand
//! for the records after.

use std::sync::Arc;

use cofferdam_audit::shred::{Fetching, Opener, SubjectKey, SubjectKeys};
use cofferdam_control::Control;
use cofferdam_model::TenantId;

/// Keys of subjects, kept by the control plane.
pub struct Subjects(Arc<Control>);

impl Subjects {
    /// Those of this control plane.
    pub fn of(control: Arc<Control>) -> Self {
        Self(control)
    }
}

impl SubjectKeys for Subjects {
    fn ready(&self, tenant: &str, subject: &str) -> Option<Arc<SubjectKey>> {
        self.0.subject_key_at_hand(tenant, subject)
    }

    fn fetch<'a>(&'a self, tenant: &'a str, subject: &'a str) -> Fetching<'a> {
        Box::pin(async move {
            let tenant = TenantId::parse(tenant).ok()?;
            let (control, subject) = (self.0.clone(), subject.to_owned());
            let (answer, asked) = tokio::sync::oneshot::channel();
            tokio::task::spawn_blocking(move || {
                let local = control.has_tenant_key(&tenant);
                let answer = if local {
                    Some(answer)
                } else {
                    drop(answer);
                    None
                };
                match control.subject_key(&tenant, &subject) {
                    // Whoever asked may have stopped waiting; the key is at hand from now on all the same.
                    Ok(key) => drop(answer.map(|answer| answer.send(key))),
                    Err(error) => tracing::warn!(%tenant, %error, "no key for a subject; its records keep less"),
                }
            });
            asked.await.ok()
        })
    }

    fn named(&self, id: &str) -> Opener {
        self.0.subject_key_named(id)
    }
}
