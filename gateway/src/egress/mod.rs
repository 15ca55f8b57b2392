//! The way out: what functions ask of the outside, asked in their stead.
//!
//! Owns names, checks of addresses, connections and credentials of every request a function sends. Must never reach
//! what no rule and no ceiling allow, an address it has not checked, or the outside without an `Attempt`.

mod address;
mod authority;
mod config;
mod credential;
mod dial;
mod download;
mod error;
mod heads;
mod names;
mod outlet;
mod pace;
mod pool;
mod quota;
#[cfg(test)]
mod tests;
mod trust;
mod upload;

use std::sync::Arc;

use cofferdam_authz::Errand;
use cofferdam_model::{Clock, DecisionFacts, EgressCeiling, EgressRule, Rate, TenantId};
use cofferdam_sandbox::Outlet;
use zeroize::Zeroizing;

pub use config::{EgressConfig, check_ceiling};
pub use error::EgressSetupError;
pub(crate) use outlet::check_credentials;
pub use outlet::check_rules;

use dial::{Dial, Tcp};
use names::{Dns, Names};
use quota::Tenants;

/// The way out of one node.
pub struct Egress {
    config: EgressConfig,
    names: Box<dyn Names>,
    dial: Box<dyn Dial>,
    clock: Arc<dyn Clock>,
    tenants: Arc<Tenants>,
}

/// Whose way out, and how wide.
pub struct Scope {
    /// Whose connections are counted together.
    pub tenant: TenantId,
    /// What the function may ask for; the first that allows a request is the one that counts.
    pub rules: Vec<EgressRule>,
    /// What the functions of the tenant may ask for at most.
    pub ceiling: Arc<EgressCeiling>,
    /// Connections of the tenant at once on this node.
    pub connections: u32,
    /// How often the functions of the tenant may ask, on this node.
    pub requests: Rate,
    /// The function's secrets that credentials are made of, by name.
    pub secrets: Vec<(String, Zeroizing<String>)>,
    /// Whether the function's workload may send a request.
    pub policies: Arc<MayConnect>,
}

/// Decides whether a function at work may send a request to the outside, with a secret of that name added to it. Asked
/// for each request, so that a change of policies counts at once.
pub type MayConnect = dyn Fn(Option<&Errand>, cofferdam_authz::Way<'_>, Option<&str>) -> Decided + Send + Sync;

/// What was decided, for or against.
pub type Decided = Result<DecisionFacts, Box<DecisionFacts>>;

impl Egress {
    /// Opens the node's way out.
    pub fn new(config: EgressConfig, clock: Arc<dyn Clock>) -> Result<Arc<Self>, EgressSetupError> {
        let names = Dns::new(&config.resolvers, config.hosts.clone())?;
        Self::with(config, clock, Box::new(names), Box::new(Tcp))
    }

    fn with(
        config: EgressConfig,
        clock: Arc<dyn Clock>,
        names: Box<dyn Names>,
        dial: Box<dyn Dial>,
    ) -> Result<Arc<Self>, EgressSetupError> {
        config.check()?;
        let tenants = Tenants::new(config.connections);
        Ok(Arc::new(Self { config, names, dial, clock, tenants }))
    }

    /// The ceiling of tenants for which nothing else is set.
    pub fn default_ceiling(&self) -> &EgressCeiling {
        &self.config.default_ceiling
    }

    /// Opens the way out of a cell.
    pub fn outlet(self: &Arc<Self>, scope: Scope) -> Result<Arc<dyn Outlet>, EgressSetupError> {
        Ok(Arc::new(outlet::Way::open(self.clone(), scope)?))
    }
}
