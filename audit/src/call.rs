//! What a record says of a call.
//!
//! Owns the fields of `call`, `intent`, `outcome`, `end` and `refusal`: which are in the entry, and which it only
//! commits to. Must never write anything but in the order of its keys.

use cofferdam_model::{CallFacts, ConnectionFacts, FunctionLimits, OutcomeFacts, PrincipalFacts, Session, Usage};

use crate::decision;
use crate::disclose::{Field, Veil};
use crate::json::Object;
use crate::privacy::{Claim, Claims};
use crate::record::{Begun, DETAIL_BYTES, Encoded, NAME_BYTES, PATH_BYTES, SUBJECT_BYTES, Stamp, VERSION, committed};
use crate::way;

const SCOPES: usize = 64;

/// All a record about a call may say.
pub(crate) struct CallRecord<'a> {
    pub(crate) kind: &'static str,
    pub(crate) request: &'a str,
    pub(crate) tenant: Option<&'a str>,
    pub(crate) facts: Option<&'a CallFacts>,
    pub(crate) begun: Option<Begun>,
    pub(crate) outcome: Option<&'a OutcomeFacts>,
}

impl<'a> CallRecord<'a> {
    pub(crate) fn bare(request: &'a str) -> Self {
        Self { kind: "", request, tenant: None, facts: None, begun: None, outcome: None }
    }

    pub(crate) fn of(facts: &'a CallFacts, outcome: &'a OutcomeFacts) -> Self {
        Self { facts: Some(facts), outcome: Some(outcome), ..Self::bare(facts.request.as_str()) }
    }

    pub(crate) fn encode(&self, stamp: &Stamp) -> Encoded {
        committed(stamp, |veil| self.committed(veil, stamp.privacy.claims), |o, veil| self.fields(o, stamp, veil))
    }

    /// What the entry only commits to, in the order of the names.
    fn committed(&self, veil: &mut Veil, claims: Claims) {
        let Some(facts) = self.facts else { return };
        decision::given(veil, facts.decision.as_ref());
        if let Some(detail) = &facts.detail {
            veil.text(Field::Detail, detail, DETAIL_BYTES);
        }
        facts.headers.iter().filter(|all| !all.is_empty()).for_each(|all| veil.headers(all));
        veil.text(Field::Host, &facts.host, SUBJECT_BYTES);
        veil.text(Field::Path, &facts.path, PATH_BYTES);
        facts.principal.iter().for_each(|facts| veil.object(Field::Principal, |o| who(o, facts, claims)));
        veil.address(Field::Source, facts.source);
    }

    /// Everything in the order of its keys, so that no sorting is needed.
    fn fields(&self, o: &mut Object<'_>, stamp: &Stamp, veil: &Veil) {
        let (facts, outcome) = (self.facts, self.outcome);
        o.maybe_text("action", facts.and_then(|f| f.action.as_deref()), NAME_BYTES);
        o.number("at", stamp.at.0);
        if let Some(outcome) = outcome {
            outcome.body.iter().for_each(|body| o.hex("body", &body.0));
            if let Some((cell, call)) = &outcome.cell {
                o.object("cell", |o| {
                    o.number("call", *call);
                    o.text("id", cell.as_str(), NAME_BYTES);
                });
            }
            o.maybe_text("check", outcome.way.check.as_deref(), NAME_BYTES);
            o.maybe_text("code", outcome.code.as_deref(), NAME_BYTES);
        }
        veil.commits(o);
        if let Some(facts) = facts {
            facts.component.iter().for_each(|component| o.hex("component", &component.0));
            facts.connection.iter().for_each(|facts| o.object("connection", |o| connection(o, facts)));
            self.begun.iter().for_each(|begun| o.number("decided", begun.decided.0));
            decision::decision(o, facts);
        }
        o.maybe_text("ending", outcome.map(|f| f.ending.as_str()), NAME_BYTES);
        o.maybe_text("isolation", outcome.and_then(|f| f.isolation).map(|i| i.as_str()), NAME_BYTES);
        o.text("kind", self.kind, NAME_BYTES);
        o.maybe_text("level", self.begun.map(|begun| begun.level.as_str()), NAME_BYTES);
        facts.and_then(|f| f.limits.as_ref()).into_iter().for_each(|facts| o.object("limits", |o| limits(o, facts)));
        o.maybe_text("method", facts.map(|f| &*f.method), NAME_BYTES);
        o.maybe_text("origin", outcome.map(|f| f.origin.as_str()), NAME_BYTES);
        if let Some(facts) = facts {
            facts.principal.iter().for_each(|facts| o.object("principal", |o| principal(o, facts)));
        }
        if let Some(outcome) = outcome {
            way::rates(o, &outcome.way);
        }
        if let Some(facts) = facts {
            o.number("received", facts.at.0);
        }
        o.text("request", self.request, NAME_BYTES);
        if let Some(facts) = facts {
            o.maybe_text("resource", facts.resource.as_deref(), NAME_BYTES);
            o.maybe_text("route", facts.route.as_deref(), NAME_BYTES);
        }
        o.hex("salt", &stamp.salt);
        veil.sealed(o);
        if let Some(outcome) = outcome {
            o.number("status", outcome.status.into());
            way::steps(o, &outcome.way);
            if outcome.streamed {
                o.flag("streamed", true);
            }
        }
        o.maybe_text("tenant", facts.and_then(|f| f.tenant.as_deref()).or(self.tenant), NAME_BYTES);
        o.maybe_text("tls", facts.map(|f| f.tls.as_str()), NAME_BYTES);
        if let Some(outcome) = outcome {
            o.object("usage", |o| usage(o, &outcome.usage));
        }
        if let Some(facts) = facts {
            decision::uses(o, facts);
        }
        o.number("v", VERSION);
        o.maybe_text("version", facts.and_then(|f| f.version.as_deref()), NAME_BYTES);
        veil.withheld(o);
    }
}

/// What kind of being it is, and where it belongs.
fn principal(o: &mut Object<'_>, facts: &PrincipalFacts) {
    o.maybe_text("bound", Some(facts.bound.as_str()).filter(|_| !facts.bound.is_none()), NAME_BYTES);
    o.text("credential", facts.credential.as_str(), NAME_BYTES);
    o.text("kind", facts.kind.as_str(), NAME_BYTES);
    o.maybe_text("tenant", facts.tenant.as_deref(), NAME_BYTES);
}

/// Which one it is.
fn who(o: &mut Object<'_>, facts: &PrincipalFacts, claims: Claims) {
    o.maybe_text("credential_id", facts.credential_id.as_deref(), SUBJECT_BYTES);
    o.text("id", &facts.id, SUBJECT_BYTES);
    o.maybe_text("issuer", facts.issuer.as_deref(), SUBJECT_BYTES);
    facts.session.iter().for_each(|facts| o.object("session", |o| session(o, facts, claims)));
}

fn session(o: &mut Object<'_>, facts: &Session, claims: Claims) {
    o.maybe_text("actor", facts.actor.as_deref().filter(|_| claims.has(Claim::Actor)), SUBJECT_BYTES);
    let authenticated = facts.authenticated.filter(|_| claims.has(Claim::Authenticated));
    authenticated.iter().for_each(|at| o.number("authenticated", *at));
    o.maybe_text("client", facts.client.as_deref().filter(|_| claims.has(Claim::Client)), SUBJECT_BYTES);
    if facts.mfa && claims.has(Claim::Mfa) {
        o.flag("mfa", true);
    }
    let scopes = facts.scopes.iter().filter(|_| claims.has(Claim::Scopes));
    scopes.for_each(|scopes| o.texts("scopes", scopes, SCOPES, NAME_BYTES));
}

fn connection(o: &mut Object<'_>, facts: &ConnectionFacts) {
    facts.certificate.iter().for_each(|certificate| o.hex("certificate", &certificate.0));
    o.text("cipher", &facts.cipher, NAME_BYTES);
    o.maybe_text("group", facts.group.as_deref(), NAME_BYTES);
    o.number("number", facts.number);
    o.number("port", facts.port.into());
    o.text("protocol", &facts.protocol, NAME_BYTES);
    if facts.resumed {
        o.flag("resumed", true);
    }
}

/// Those that bound what one call uses.
fn limits(o: &mut Object<'_>, limits: &FunctionLimits) {
    o.number("cpu_ms", limits.cpu_ms);
    o.number("egress_bytes", limits.egress_bytes);
    o.number("egress_calls", limits.egress_calls.into());
    o.number("log_bytes", limits.log_bytes);
    o.number("memory_bytes", limits.memory_bytes);
    o.number("request_bytes", limits.request_bytes);
    o.number("response_bytes", limits.response_bytes);
    o.number("wall_ms", limits.wall_ms);
}

fn usage(o: &mut Object<'_>, usage: &Usage) {
    o.number("bytes_in", usage.bytes_in);
    o.number("bytes_out", usage.bytes_out);
    o.number("cpu_us", usage.cpu_us);
    o.number("egress_bytes_in", usage.egress_bytes_in);
    o.number("egress_bytes_out", usage.egress_bytes_out);
    o.number("egress_calls", usage.egress_calls);
    o.number("log_bytes", usage.log_bytes);
    o.number("memory_bytes", usage.memory_bytes);
    o.number("memory_kib_ms", usage.memory_kib_ms);
    o.number("wall_us", usage.wall_us);
}
