//! Tenants, who belongs to them, their policies and their API keys.
//!
//! Owns the rules these must keep. Must never hand out a key's text a second time: only its MAC is stored.

use std::collections::HashMap;
use std::time::Duration;

use cofferdam_authz::{POLICIES_BYTES_MAX, POLICIES_MAX, POLICY_BYTES_MAX, api_key, sigv4};
use cofferdam_model::id::{is_name, platform_tenant};
use cofferdam_model::{KeyId, KeyKind, KeySettings, TenantId, TenantLimits, TenantSettings, UnixNanos};
use serde_json::{Value, json};

use crate::Control;
use crate::apply::{Change, NewTenant};
use crate::error::ControlError;
use crate::machine::check_settings;
use crate::store::{ApiKeyRow, MemberRow, PolicyRow, TenantRow};
use crate::vault::WrappedKey;

/// Name of the tenant that stands for the platform.
pub const PLATFORM_NAME: &str = "platform";
/// The role that manages the platform. Means something in the platform's tenant only.
pub const OPERATOR: &str = "operator";

const TENANTS: usize = 10_000;
const MEMBERS: usize = 10_000;
const ROLES: usize = 16;
const SCOPES: usize = 32;
const SUBJECT_BYTES: usize = 255;
const API_KEYS: usize = 1_000;
const KEY_TTL_SECONDS: std::ops::RangeInclusive<u64> = 60..=365 * 24 * 60 * 60;

/// Refuses limits under which nothing could run.
fn check_limits(limits: &TenantLimits) -> Result<(), ControlError> {
    for (name, value) in [("cells", limits.cells), ("concurrency", limits.concurrency)] {
        if value == 0 {
            return Err(ControlError::invalid(format!("limit `{name}`"), "0", "at least 1 is needed"));
        }
    }
    Ok(())
}

impl Change<'_> {
    pub(crate) fn create_tenant(&mut self, name: &str) -> Result<(TenantId, Value), ControlError> {
        check_name("tenant name", name)?;
        if name == PLATFORM_NAME {
            return Err(ControlError::invalid("tenant name", name, "it stands for the platform itself"));
        }
        if self.tx.tenants()?.len() >= TENANTS {
            return Err(ControlError::TooMany { what: "tenants", limit: TENANTS });
        }
        let Some(NewTenant { id, key }) = self.prepared.take() else {
            return Err(ControlError::NotAChange { action: "CreateTenant" });
        };
        self.insert_tenant(id.clone(), name, &key)?;
        let answer = json!({ "id": id, "name": name });
        Ok((id, answer))
    }

    pub(crate) fn put_tenant_settings(
        &mut self,
        tenant: &TenantId,
        settings: &TenantSettings,
    ) -> Result<(TenantId, Value), ControlError> {
        if *tenant == platform_tenant() {
            let reason = "the platform has no functions of its own";
            return Err(ControlError::invalid("tenant", PLATFORM_NAME, reason));
        }
        let state = self.state(tenant)?;
        if let Some(limits) = &settings.limits {
            check_limits(limits)?;
        }
        self.tx.put_tenant_settings(tenant, settings)?;
        // What a tenant may reach is part of what each of its cells was filled with. A cell being started right now,
        // or for a call with an older picture, must not serve whoever comes after: it is of another generation.
        for (mut function, _) in state.functions {
            function.generation += 1;
            self.tx.put_function(&function)?;
        }
        let answer = json!({ "id": tenant, "name": state.tenant.name, "settings": settings });
        Ok((tenant.clone(), answer))
    }

    pub(crate) fn insert_tenant(&mut self, id: TenantId, name: &str, key: &WrappedKey) -> Result<(), ControlError> {
        let row = TenantRow {
            id,
            name: name.to_owned(),
            active: true,
            settings: TenantSettings::default(),
            created: self.means.now,
            organisation: None,
        };
        self.tx.insert_tenant(&row, key)
    }

    pub(crate) fn put_member(
        &mut self,
        tenant: &TenantId,
        issuer: Option<&str>,
        subject: &str,
        roles: &[String],
    ) -> Done {
        check_issuer(issuer)?;
        let printable = !subject.is_empty() && subject.chars().all(|c| !c.is_control());
        if !printable || subject.len() > SUBJECT_BYTES {
            return Err(ControlError::invalid("subject", subject, "1 to 255 bytes, none of them a control character"));
        }
        check_roles(tenant, roles)?;
        let state = self.state(tenant)?;
        let known = state.members.iter().any(|member| member.subject == subject && member.issuer.as_deref() == issuer);
        if !known && state.members.len() >= MEMBERS {
            return Err(ControlError::TooMany { what: "members", limit: MEMBERS });
        }
        let row = MemberRow { issuer: issuer.map(str::to_owned), subject: subject.to_owned(), roles: roles.to_vec() };
        self.tx.put_member(tenant, &row)?;
        Ok(json!({ "tenant": tenant, "issuer": issuer, "subject": subject, "roles": roles, "created": !known }))
    }

    pub(crate) fn remove_member(&mut self, tenant: &TenantId, issuer: Option<&str>, subject: &str) -> Done {
        if !self.tx.remove_member(tenant, issuer, subject)? {
            return Err(ControlError::not_found("member", subject));
        }
        Ok(json!({ "tenant": tenant, "issuer": issuer, "subject": subject, "removed": true }))
    }

    pub(crate) fn put_policy(&mut self, tenant: &TenantId, name: &str, text: &str) -> Done {
        let state = self.state(tenant)?;
        check_policy(&state.policies, name, text)?;
        // Whether it compiles shows when the tenant's next snapshot is built, before anything is committed.
        self.tx.put_policy(tenant, &PolicyRow { name: name.to_owned(), text: text.to_owned() })?;
        Ok(json!({ "tenant": tenant, "name": name }))
    }

    pub(crate) fn remove_policy(&mut self, tenant: &TenantId, name: &str) -> Done {
        if !self.tx.remove_policy(tenant, name)? {
            return Err(ControlError::not_found("policy", name));
        }
        Ok(json!({ "tenant": tenant, "name": name, "removed": true }))
    }

    pub(crate) fn create_key(
        &mut self,
        tenant: &TenantId,
        account: &str,
        (roles, scopes): (&[String], &[String]),
        ttl_seconds: u64,
        settings: &KeySettings,
    ) -> Done {
        check_name("account", account)?;
        check_settings(settings)?;
        check_roles(tenant, roles)?;
        self.check_scopes(scopes)?;
        if !KEY_TTL_SECONDS.contains(&ttl_seconds) {
            let reason = "a key is good for at least 60 seconds and at most 365 days";
            return Err(ControlError::invalid("ttl_seconds", &ttl_seconds.to_string(), reason));
        }
        self.make_room_for_key(tenant)?;
        let (id, text, mac, sealed) = match settings.kind {
            KeyKind::ApiKey => {
                let (id, text, mac) = api_key::create(tenant, self.means.pepper, self.means.random);
                (id, text, mac, None)
            }
            KeyKind::Sigv4 => {
                let keys = self.state(tenant)?.keys;
                let (id, sealed, secret) = self.access_key(tenant, &keys)?;
                (id, secret, [0; 32], Some(sealed))
            }
        };
        let key = ApiKeyRow {
            id,
            account: account.to_owned(),
            roles: roles.to_vec(),
            scopes: scopes.to_vec(),
            mac,
            created: self.means.now,
            expires: self.means.now.plus(Duration::from_secs(ttl_seconds)),
            revoked: None,
            settings: settings.clone(),
            sealed,
        };
        self.tx.insert_api_key(&key)?;
        let mut answer = describe_key(&key, None);
        if let Value::Object(fields) = &mut answer {
            let name = if settings.kind == KeyKind::Sigv4 { "secret_access_key" } else { "key" };
            fields.insert(name.into(), text.expose().into());
        }
        Ok(answer)
    }

    fn check_scopes(&self, scopes: &[String]) -> Result<(), ControlError> {
        if scopes.len() > SCOPES {
            return Err(ControlError::TooMany { what: "scopes", limit: SCOPES });
        }
        let reason = "a scope is the name of an action or of a group of them, or `fn:` and the name of a function";
        let wrong = |scope: &str| ControlError::invalid("scope", scope, reason);
        self.means.authorizer.check_scopes(scopes).map_err(wrong)
    }

    /// Keys that are good no more are forgotten only when their room is needed: till then they can be looked up.
    fn make_room_for_key(&mut self, tenant: &TenantId) -> Result<(), ControlError> {
        let keys = self.state(tenant)?.api_keys;
        if keys.len() < API_KEYS {
            return Ok(());
        }
        let now = self.means.now;
        let mut dead = keys.iter().filter(|key| key.revoked.is_some() || key.expires <= now).peekable();
        if dead.peek().is_none() {
            return Err(ControlError::TooMany { what: "API keys", limit: API_KEYS });
        }
        dead.try_for_each(|key| self.tx.remove_api_key(&key.id).map(|_| ()))
    }

    pub(crate) fn revoke_key(&mut self, id: &KeyId) -> Done {
        let keys = self.state(&id.tenant())?.api_keys;
        let Some(mut key) = keys.into_iter().find(|key| key.id == *id) else {
            return Err(ControlError::not_found("API key", id.as_str()));
        };
        if self.tx.revoke_api_key(id, self.means.now)? {
            key.revoked = Some(self.means.now);
        }
        Ok(describe_key(&key, None))
    }
}

/// Refuses a text that is too large, or one too many beside others of its set.
pub(crate) fn check_policy(others: &[PolicyRow], name: &str, text: &str) -> Result<(), ControlError> {
    check_name("policy name", name)?;
    if text.len() > POLICY_BYTES_MAX {
        let what = format!("policy `{name}`");
        return Err(ControlError::TooLarge { what, bytes: text.len(), limit: POLICY_BYTES_MAX });
    }
    let others = others.iter().filter(|policy| policy.name != name);
    let (count, bytes) = others.fold((0, text.len()), |(n, bytes), policy| (n + 1, bytes + policy.text.len()));
    if count >= POLICIES_MAX {
        return Err(ControlError::TooMany { what: "policies", limit: POLICIES_MAX });
    }
    if bytes > POLICIES_BYTES_MAX {
        let what = "all policies of the set together".to_owned();
        return Err(ControlError::TooLarge { what, bytes, limit: POLICIES_BYTES_MAX });
    }
    Ok(())
}

/// What a change answers, or why it was refused.
pub(crate) type Done = Result<Value, ControlError>;

/// A tenant's keys. When they were used is counted from the log, so it is as new as that count.
pub(crate) fn list_keys(control: &Control, id: &TenantId) -> Done {
    let snapshot = control.snapshot();
    let tenant = snapshot.tenant(id).ok_or_else(|| ControlError::not_found("tenant", id.as_str()))?;
    let uses: HashMap<_, _> = control.transact(|tx| tx.key_uses(id))?.into_iter().collect();
    let keys = tenant.api_keys().map(|key| describe_key(key, uses.get(&key.id).copied()));
    Ok(json!({ "tenant": id, "keys": keys.collect::<Vec<_>>() }))
}

/// A key as callers see it.
fn describe_key(key: &ApiKeyRow, used: Option<u64>) -> Value {
    let signs = key.settings.kind == KeyKind::Sigv4;
    json!({
        "kind": key.settings.kind,
        "access_key_id": signs.then(|| sigv4::access_key_id(&key.id)),
        "networks": key.settings.networks,
        "unsigned_payload": key.settings.unsigned_payload,
        "id": key.id,
        "account": key.account,
        "roles": key.roles,
        "scopes": key.scopes,
        "created": key.created.to_string(),
        "expires": key.expires.to_string(),
        "used": used.map(|seconds| UnixNanos::from_seconds(seconds).to_string()),
        "revoked": key.revoked.map(|at| at.to_string()),
    })
}

/// Refuses what may not be a name.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), ControlError> {
    if is_name(name) {
        return Ok(());
    }
    let reason = "a name is 1 to 63 of `a-z`, `0-9` and `-`, begins with a letter and does not end with `-`";
    Err(ControlError::invalid(field, name, reason))
}

/// Refuses what no issuer can be called.
fn check_issuer(issuer: Option<&str>) -> Result<(), ControlError> {
    let plain = |text: &str| (1..=512).contains(&text.len()) && !text.chars().any(|c| c.is_control() || c == '|');
    match issuer.filter(|issuer| !plain(issuer)) {
        Some(issuer) => Err(ControlError::invalid("issuer", issuer, "1 to 512 printable bytes without `|`")),
        None => Ok(()),
    }
}

pub(crate) fn check_roles(tenant: &TenantId, roles: &[String]) -> Result<(), ControlError> {
    if roles.is_empty() || roles.len() > ROLES {
        return Err(ControlError::invalid("roles", &roles.join(","), "1 to 16 roles are expected"));
    }
    for (at, role) in roles.iter().enumerate() {
        check_name("role", role)?;
        if roles.iter().take(at).any(|earlier| earlier == role) {
            return Err(ControlError::invalid("role", role, "it is listed twice"));
        }
        if role == OPERATOR && *tenant != platform_tenant() {
            return Err(ControlError::invalid("role", role, "operators belong to the platform's own tenant"));
        }
    }
    Ok(())
}
