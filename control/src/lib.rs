//! What exists: tenants, functions, routes, policies, secrets and keys, and the store that keeps them.
//!
//! Owns the rules of what may exist, the one way to change it (`Control::apply`, which takes a recorded permit) and
//! the immutable snapshot everything else reads. Must never speak to a network, and never run or see a component.

mod apply;
mod deployment;
mod egress;
mod error;
mod function;
mod govern;
pub mod issuer;
mod keep;
mod keyfile;
mod load;
mod machine;
pub mod own_issuer;
mod revocation;
mod rotation;
mod route;
mod secret;
mod snapshot;
pub mod store;
mod stored;
mod tenant;
mod usage;
mod user;
pub mod vault;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use cofferdam_authz::{Authorizer, Errand, Pepper, SecretText, Way, api_key, passphrase};
use cofferdam_model::id::platform_tenant;
use cofferdam_model::{
    Clock, DecisionFacts, Digest, EgressRule, Env, FunctionId, FunctionLimits, KeyId, KeySettings, OsRandom, Random,
    SystemClock, TenantId, TenantLimits,
};

use crate::apply::{Change, Means, NewTenant};
use crate::load::load;
use crate::own_issuer::OwnIssuer;
use crate::store::{ApiKeyRow, SqliteStore, Store, Transaction};
use crate::vault::{LocalRoot, OrdinaryMemory, Vault};

pub use deployment::check_settings_alone as check_settings;
pub use egress::Egress;
pub use error::{ControlError, VaultError};
pub use keyfile::{create as create_private, fresh as fresh_key, load as load_key, private_dir};
pub use own_issuer::{Narrowing, OwnIssuerConfig};
pub use route::{check_spec as check_route, conflict as routes_conflict};
pub use snapshot::{FunctionEntry, OrganisationEntry, RouteEntry, Snapshot, TenantEntry, VersionEntry};
pub use stored::{Flagged, flagged};
pub use tenant::{OPERATOR, PLATFORM_NAME};
pub use usage::Meter;

/// How long the operator's first key is good for.
const OPERATOR_KEY_TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Where things are, and what nobody may ask more than.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// Directory of `state.sqlite`.
    pub dir: PathBuf,
    /// The root key's file: 32 bytes, readable by its owner alone.
    pub root_key: PathBuf,
    /// The file of the key by which API keys are recognised: 32 bytes, readable by its owner alone.
    pub pepper: PathBuf,
    /// The most a function may ask for.
    pub ceiling: FunctionLimits,
    /// What the functions of one tenant may use together.
    pub tenant_limits: TenantLimits,
    /// The node's own issuer, where it has one.
    pub issuer: Option<OwnIssuerConfig>,
}

impl ControlConfig {
    /// Everything in one directory, with the default ceiling and limits.
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            dir: dir.into(),
            root_key: dir.join("root.key"),
            pepper: dir.join("pepper.key"),
            ceiling: FunctionLimits::ceiling(),
            tenant_limits: TenantLimits::default(),
            issuer: None,
        }
    }

    /// A vault on the root key's file, with its keys in ordinary memory: for tools and tests.
    pub fn local_vault(&self, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Result<Vault, ControlError> {
        let memory = Arc::new(OrdinaryMemory);
        let root = LocalRoot::file(&self.root_key, memory.clone(), random)?;
        Ok(Vault::new(Arc::new(root), memory, clock, vault::KEEP))
    }

    /// The file of everything that exists.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state.sqlite")
    }
}

/// The operator's first API key. Its text exists nowhere else.
pub struct OperatorKey {
    /// Its id.
    pub id: KeyId,
    /// Its text, to be shown once.
    pub text: SecretText,
}

/// What exists, and the way to change it.
pub struct Control {
    store: Mutex<Box<dyn Store>>,
    /// Held by whoever replaces or destroys keys.
    rotating: Mutex<()>,
    snapshot: ArcSwap<Snapshot>,
    vault: Vault,
    subjects: keep::Subjects,
    pepper: Pepper,
    pepper_file: PathBuf,
    ceiling: FunctionLimits,
    tenant_limits: Arc<TenantLimits>,
    issuer: Option<OwnIssuer>,
    authorizer: Arc<Authorizer>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl Control {
    /// Makes the directory, its keys, an empty store, the platform's tenant and its operator. Refuses where any of
    /// it is there already.
    pub fn init(config: &ControlConfig, clock: &dyn Clock, random: &dyn Random) -> Result<OperatorKey, ControlError> {
        keyfile::private_dir(&config.dir)?;
        if config.state().exists() {
            return Err(ControlError::AlreadyInitialised { path: config.state() });
        }
        keyfile::create(&config.root_key, keyfile::fresh(random).as_slice())?;
        let vault = config.local_vault(Arc::new(SystemClock::default()), Arc::new(OsRandom))?;
        Self::init_with(config, &vault, clock, random)
    }

    /// The same with a root key that is there.
    pub fn init_with(
        config: &ControlConfig,
        vault: &Vault,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<OperatorKey, ControlError> {
        keyfile::private_dir(&config.dir)?;
        if config.state().exists() {
            return Err(ControlError::AlreadyInitialised { path: config.state() });
        }
        // First of all what may not work.
        let own = NewTenant { id: platform_tenant(), key: vault.tenant_key(&platform_tenant(), 1, random)? };
        keyfile::create(&config.pepper, keyfile::fresh(random).as_slice())?;
        // Made here rather than by SQLite, which would let the umask choose who may read it.
        keyfile::create(&config.state(), &[])?;
        let mut store = SqliteStore::open(&config.state())?;
        let authorizer = Authorizer::new().map_err(ControlError::Policy)?;
        let pepper = load_pepper(&config.pepper)?;
        let (id, text, mac) = api_key::create(&platform_tenant(), &pepper, random);
        let now = clock.now();
        let key = ApiKeyRow {
            id: id.clone(),
            account: OPERATOR.into(),
            roles: vec![OPERATOR.into()],
            scopes: Vec::new(),
            mac,
            created: now,
            expires: now.plus(OPERATOR_KEY_TTL),
            revoked: None,
            settings: KeySettings::default(),
            sealed: None,
        };
        store::run(&mut store, |tx| {
            let (ceiling, limits) = (&config.ceiling, &config.tenant_limits);
            let authorizer = &authorizer;
            let (issuer, passphrases) = (None, passphrase::COST);
            let pepper = &pepper;
            let means = Means { vault, pepper, random, now, ceiling, limits, authorizer, issuer, passphrases };
            Change { tx, means, by_operator: true, prepared: None }.insert_tenant(own.id, PLATFORM_NAME, &own.key)?;
            tx.insert_api_key(&key)?;
            tx.next_generation()
        })?;
        Ok(OperatorKey { id, text })
    }

    /// Opens what `init` made, and reads everything that exists.
    pub fn open(
        config: ControlConfig,
        authorizer: Arc<Authorizer>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, ControlError> {
        let vault = config.local_vault(clock.clone(), random.clone())?;
        Self::open_with(config, vault, authorizer, clock, random)
    }

    /// The same with a root key from elsewhere, which need not be in reach now.
    pub fn open_with(
        config: ControlConfig,
        vault: Vault,
        authorizer: Arc<Authorizer>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, ControlError> {
        let pepper = load_pepper(&config.pepper)?;
        let mut store = SqliteStore::open(&config.state())?;
        let tenant_limits = Arc::new(config.tenant_limits);
        let snapshot = load(&mut store, &authorizer, &config.ceiling, &tenant_limits, clock.now())?;
        let issuer = match &config.issuer {
            Some(own) => {
                Some(store::run(&mut store, |tx| OwnIssuer::open(own, &config.dir, tx, (&*random, clock.now())))?)
            }
            None => None,
        };
        let snapshot = snapshot.of_issuer(issuer.as_ref().map(|issuer| issuer.name().into()));
        Ok(Self {
            store: Mutex::new(Box::new(store)),
            rotating: Mutex::new(()),
            snapshot: ArcSwap::from_pointee(snapshot),
            vault,
            subjects: keep::Subjects::default(),
            pepper,
            pepper_file: config.pepper,
            ceiling: config.ceiling,
            tenant_limits,
            issuer,
            authorizer,
            clock,
            random,
        })
    }

    /// What seals and opens.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// What exists now. Stays as it is however long it is held.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The environment of a function's cell, in plaintext.
    pub fn unseal(&self, function: &FunctionId) -> Result<Env, ControlError> {
        self.with_current(function, |tenant, function| deployment::unseal(&self.vault, tenant, function))
    }

    /// Has the keys at hand that a function's environment and credentials are opened with. No thread waits for that.
    pub async fn at_hand(&self, function: &FunctionId) -> Result<(), ControlError> {
        let snapshot = self.snapshot();
        let entry = snapshot.tenant(&function.tenant()).zip(snapshot.function_by_id(function));
        let (tenant, entry) = entry.ok_or_else(|| ControlError::not_found("function", function.as_str()))?;
        let wanted = |name: &str| {
            let injected = entry.settings.egress.iter().filter_map(|rule| rule.credential.as_ref());
            let mut names = entry.settings.secrets.iter().chain(injected.map(|credential| &credential.secret));
            names.any(|wanted| wanted == name)
        };
        let sealed = entry.secrets.iter().filter(|secret| wanted(&secret.name)).map(|secret| secret.sealed.key_version);
        let versions: Vec<u32> = sealed.collect::<BTreeSet<_>>().into_iter().collect();
        Ok(self.vault.at_hand(&tenant.id, &tenant.keys, &versions).await?)
    }

    /// Has the keys of a tenant at hand, for a change that may seal or open something of it. No thread waits for that.
    pub async fn keys_at_hand(&self, tenant: &TenantId) -> Result<(), ControlError> {
        let snapshot = self.snapshot();
        let Some(tenant) = snapshot.tenant(tenant) else { return Ok(()) };
        let versions: Vec<u32> = tenant.keys.iter().map(|key| key.version).collect();
        Ok(self.vault.at_hand(&tenant.id, &tenant.keys, &versions).await?)
    }

    /// Opens something of a function. Where the root key was replaced in between, once more with what is there then.
    fn with_current<T>(
        &self,
        function: &FunctionId,
        open: impl Fn(&TenantEntry, &FunctionEntry) -> Result<T, ControlError>,
    ) -> Result<T, ControlError> {
        let mut seen = None;
        loop {
            let snapshot = self.snapshot.load();
            let entry = snapshot.tenant(&function.tenant()).zip(snapshot.function_by_id(function));
            let (tenant, entry) = entry.ok_or_else(|| ControlError::not_found("function", function.as_str()))?;
            match open(tenant, entry) {
                Err(ControlError::Vault(_)) if seen.is_none_or(|seen| seen != snapshot.generation()) => {
                    seen = Some(snapshot.generation());
                }
                opened => return opened,
            }
        }
    }

    /// A function's egress rules, with what they put in, in plaintext.
    pub fn egress(&self, function: &FunctionId) -> Result<Egress, ControlError> {
        self.with_current(function, |tenant, function| {
            egress::open(&self.vault, tenant, function, &function.settings.egress)
        })
    }

    /// Rules that a function is to have, with what they put in of the secrets it has by now. A function that does not
    /// exist yet has none.
    pub fn egress_by(&self, function: &FunctionId, rules: &[EgressRule]) -> Result<Egress, ControlError> {
        let snapshot = self.snapshot.load();
        match snapshot.tenant(&function.tenant()).zip(snapshot.function_by_id(function)) {
            Some((tenant, function)) => egress::open(&self.vault, tenant, function, rules),
            None => Ok(Egress { rules: Vec::new(), credentials: Vec::new() }),
        }
    }

    /// Compiles policies that are large and were not compiled at the start, so that no call has to wait for them. Takes
    /// its time: for a thread of its own.
    pub fn warm(&self) {
        let snapshot = self.snapshot();
        let open = snapshot.tenants().filter(|tenant| tenant.active);
        open.filter_map(|tenant| snapshot.policies(&tenant.id)).for_each(|policies| policies.warm());
    }

    /// Whether a function at work may send a request to the outside, by the policies of this moment.
    pub fn may_connect(
        &self,
        errand: Option<&Errand>,
        way: Way<'_>,
        secret: Option<&str>,
    ) -> Result<DecisionFacts, Box<DecisionFacts>> {
        let policies = errand.and_then(|errand| self.snapshot.load().policies(errand.tenant()));
        self.authorizer.connect(policies.as_deref(), errand, way, secret)
    }

    /// The key by which API keys are recognised, for `authz::Identities`.
    pub fn pepper(&self) -> Result<Pepper, ControlError> {
        load_pepper(&self.pepper_file)
    }

    /// Whether the store still takes changes.
    pub fn health(&self) -> Result<(), ControlError> {
        self.transact(|tx| tx.tenants().map(|_| ()))
    }

    /// Every component that a version of any function is made of. Blocks on the disk.
    pub fn components(&self) -> Result<HashSet<Digest>, ControlError> {
        Ok(self.transact(|tx| tx.components(None))?.into_iter().map(|(component, _)| component).collect())
    }

    /// Whether a tenant may store this component, which is asked before anything is spent on it. Publishing asks again.
    pub fn room_for(&self, tenant: &TenantId, component: Digest, bytes: u64) -> Result<(), ControlError> {
        let snapshot = self.snapshot.load();
        let limits = snapshot.tenant(tenant).map_or(&self.tenant_limits, |tenant| &tenant.limits);
        self.transact(|tx| function::make_room(tx, limits, tenant, component, bytes))
    }

    /// Does something in the store that makes no new snapshot.
    pub(crate) fn transact<T>(
        &self,
        work: impl FnOnce(&mut dyn Transaction) -> Result<T, ControlError>,
    ) -> Result<T, ControlError> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        store::run(&mut **store, work)
    }
}

fn load_pepper(path: &Path) -> Result<Pepper, ControlError> {
    Ok(Pepper::new(*keyfile::load(path)?))
}
