//! Hosts at which machines show certificates.
//!
//! Owns which host is whose door, and what a call must have come by to be let in there. Must never have one tenant's
//! authorities asked at another's host, nor a session of one be resumed at another's or under other authorities.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use cofferdam_authz::{ClientAuthorities, PeerCertificate};
use cofferdam_control::Snapshot;
use cofferdam_model::{Circumstances, TenantId};
use rustls::ServerConfig;

use crate::pipeline::is_reserved;
use crate::refusal::Refusal;

/// The door of one tenant's hosts, for as long as its authorities stay the same.
#[derive(Debug)]
pub struct Door {
    pub(crate) tenant: TenantId,
    pub(crate) authorities: Arc<ClientAuthorities>,
    /// What handshakes at it are made with. Its memory of sessions goes with it.
    pub(crate) config: OnceLock<Arc<ServerConfig>>,
}

/// Doors by host.
#[derive(Debug, Default)]
pub(crate) struct Doors(HashMap<Arc<str>, Arc<Door>>);

/// What a connection came by.
#[derive(Debug, Clone)]
pub struct CameBy {
    /// The door its handshake named.
    pub(crate) tenant: TenantId,
    /// What was shown there, if anything was.
    pub(crate) certificate: Option<Arc<PeerCertificate>>,
}

impl Doors {
    /// Every host that belongs to one tenant alone, if that has authorities. Doors that are still the same are kept.
    pub(crate) fn of(snapshot: &Snapshot, before: Option<&Self>) -> Self {
        let mut owners: HashMap<&str, Option<&TenantId>> = HashMap::new();
        for route in snapshot.routes() {
            let owner = owners.entry(&route.spec.host).or_insert(Some(&route.tenant));
            // Two tenants on one host have no authority in common.
            *owner = owner.filter(|owner| **owner == route.tenant);
        }
        let mut doors: HashMap<&TenantId, Arc<Door>> = HashMap::new();
        for tenant in snapshot.tenants().filter(|tenant| tenant.active) {
            let Some(authorities) = tenant.authorities() else { continue };
            let same = |door: &&Arc<Door>| door.tenant == tenant.id && Arc::ptr_eq(&door.authorities, authorities);
            let kept = before.and_then(|before| before.0.values().find(same)).cloned();
            let door = kept.unwrap_or_else(|| {
                let (tenant, authorities) = (tenant.id.clone(), authorities.clone());
                Arc::new(Door { tenant, authorities, config: OnceLock::new() })
            });
            doors.insert(&tenant.id, door);
        }
        let door = |(host, owner): (&str, Option<&TenantId>)| {
            let door = doors.get(owner?).filter(|_| host != "*")?;
            Some((Arc::from(host), door.clone()))
        };
        Self(owners.into_iter().filter_map(door).collect())
    }

    /// The door of a host, in lower case and without port.
    pub(crate) fn at(&self, host: &str) -> Option<&Arc<Door>> {
        self.0.get(host)
    }

    /// Refuses a call on a connection that did not come by the door of its host, where that matters: where it shows a
    /// certificate, which is one tenant's, and where the host wants one. The platform's own paths want none.
    pub(crate) fn check(&self, at: &Circumstances, came: Option<&CameBy>) -> Result<(), Refusal> {
        let certificate = came.and_then(|came| came.certificate.as_ref());
        let Some(door) = self.at(&at.host) else {
            return if certificate.is_none() { Ok(()) } else { Err(Refusal::Misdirected) };
        };
        let through = came.is_some_and(|came| came.tenant == door.tenant);
        match (through, certificate.is_some(), door.authorities.required() && !is_reserved(&at.path)) {
            (true, true, _) | (_, false, false) => Ok(()),
            // Asked for one, and showed none.
            (true, false, true) => Err(Refusal::Unauthenticated),
            (false, true, _) | (false, false, true) => Err(Refusal::Misdirected),
        }
    }
}
