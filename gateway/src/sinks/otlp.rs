//! A sink that is a receiver of OpenTelemetry's logs: OTLP over HTTP, with JSON.
//!
//! Owns the shape of its requests. Must never take a batch for arrived of which the receiver rejected a record.

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::About;
use super::batch::{Batch, Item};
use super::config::OtlpConfig;
use super::error::SinkError;
use super::http::{Line, authorize, field};

/// The receiver.
pub(super) struct Otlp {
    config: OtlpConfig,
    line: Line,
    about: About,
}

impl Otlp {
    pub(super) fn new(config: OtlpConfig, about: About) -> Result<Self, SinkError> {
        authorize(&mut HeaderMap::new(), config.authorization_file.as_deref())?;
        let line = Line::new(&config.url, &config.tls)?;
        Ok(Self { config, line, about })
    }

    pub(super) async fn deliver(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let mut headers = HeaderMap::new();
        field(&mut headers, "content-type", "application/json");
        field(&mut headers, "user-agent", &self.about.agent());
        authorize(&mut headers, self.config.authorization_file.as_deref())?;
        let (path, body) = (self.line.target.path.clone(), request(batch, &self.about).to_string());
        let answer = self.line.ask(Method::POST, path, headers, Bytes::from(body)).await?;
        self.line.acknowledged(&answer, |_| String::new())?;
        match rejected(&answer.body) {
            0 => Ok(()),
            count => Err(SinkError::Rejected { authority: self.line.target.authority.clone(), count }),
        }
    }

    pub(super) fn forget(&mut self) {
        self.line.forget();
    }
}

/// Records that were not taken. 64-bit numbers are text in this JSON, but not everybody writes them so.
fn rejected(body: &[u8]) -> u64 {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    match answer.pointer("/partialSuccess/rejectedLogRecords") {
        Some(Value::String(count)) => count.parse().unwrap_or(1),
        Some(count) => count.as_u64().unwrap_or_default(),
        None => 0,
    }
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn request(batch: &Batch, about: &About) -> Value {
    let records: Vec<Value> = batch.items.iter().map(record).collect();
    json!({ "resourceLogs": [{
        "resource": { "attributes": [
            text("service.name", "cofferdam"),
            text("service.version", about.version),
            text("service.instance.id", &about.origin),
        ] },
        "scopeLogs": [{
            "scope": { "name": "cofferdam.audit", "version": about.version },
            "logRecords": records,
        }],
    }] })
}

fn severity(kind: &str) -> (u8, &'static str) {
    match kind {
        "gap" | "recovered" => (13, "WARN"),
        "refusal" | "refusals" => (10, "INFO2"),
        _ => (9, "INFO"),
    }
}

fn record(item: &Item) -> Value {
    let (number, name) = severity(&item.kind);
    let mut attributes = vec![
        json!({ "key": "cofferdam.audit.index", "value": { "intValue": item.index.to_string() } }),
        text("cofferdam.audit.kind", &item.kind),
    ];
    attributes.extend(item.tenant.iter().map(|tenant| text("cofferdam.tenant", tenant)));
    attributes.extend(item.request.iter().map(|request| text("cofferdam.request", request)));
    let at = item.at.0.to_string();
    json!({
        "timeUnixNano": at,
        "observedTimeUnixNano": at,
        "severityNumber": number,
        "severityText": name,
        "eventName": format!("cofferdam.audit.{}", item.kind),
        "body": { "stringValue": String::from_utf8_lossy(&item.text) },
        "attributes": attributes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_records_are_counted_however_the_number_is_written() {
        let told = |body: &str| rejected(body.as_bytes());
        assert_eq!(told("{}"), 0);
        assert_eq!(told(""), 0);
        assert_eq!(told("{\"partialSuccess\":{}}"), 0);
        assert_eq!(told("{\"partialSuccess\":{\"rejectedLogRecords\":\"3\"}}"), 3);
        assert_eq!(told("{\"partialSuccess\":{\"rejectedLogRecords\":4}}"), 4);
        assert_eq!(told("{\"partialSuccess\":{\"rejectedLogRecords\":\"some\"}}"), 1);
    }
}
