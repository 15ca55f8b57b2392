//! A sink that is a receiver of syslog over TLS.
//!
//! Owns the messages (RFC 5424), their framing (RFC 5425), and what counts as an acknowledgement. Syslog has none of
//! its own: a batch has arrived once the receiver, told that this was all, ends the connection as TLS wants it, which
//! it cannot do before it has read everything. Must never take a connection that merely broke for that.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::About;
use super::batch::{Batch, Item};
use super::config::SyslogConfig;
use super::error::SinkError;
use super::http::Dial;
use crate::client::Target;

/// Characters of a host name in a message.
const HOST: usize = 255;
/// Bytes a receiver may say before it ends the connection; there is nothing for it to say.
const SAID: usize = 4096;

/// The receiver.
pub(super) struct Syslog {
    target: Target,
    dial: Dial,
    facility: u8,
    about: About,
}

impl Syslog {
    pub(super) fn new(config: SyslogConfig, about: About) -> Result<Self, SinkError> {
        let target = Target::parse(&format!("https://{}/", config.address))?;
        Ok(Self { target, dial: Dial::new(config.tls, false)?, facility: config.facility, about })
    }

    pub(super) async fn deliver(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let mut stream = self.dial.connect(&self.target).await?;
        let broken =
            |source: io::Error| SinkError::Broken { authority: self.target.authority.clone(), source: source.into() };
        let mut out = Vec::new();
        for item in &batch.items {
            frame(&mut out, &message(item, self.facility, &self.about));
        }
        stream.write_all(&out).await.map_err(broken)?;
        stream.shutdown().await.map_err(broken)?;
        let (mut said, mut piece) = (0, [0; 512]);
        loop {
            match stream.read(&mut piece).await {
                // Told by the other side of TLS itself: nobody on the way can have made it up.
                Ok(0) => return Ok(()),
                Ok(bytes) if said + bytes <= SAID => said += bytes,
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(broken(error)),
            }
        }
        Err(SinkError::Unconfirmed { authority: self.target.authority.clone() })
    }

    pub(super) fn forget(&mut self) {
        self.dial.forget();
    }
}

/// Counts its octets before it.
fn frame(out: &mut Vec<u8>, message: &[u8]) {
    out.extend_from_slice(format!("{} ", message.len()).as_bytes());
    out.extend_from_slice(message);
}

fn severity(kind: &str) -> u8 {
    match kind {
        "gap" | "recovered" => 4,
        "refusal" | "refusals" | "start" | "stop" | "event" => 5,
        _ => 6,
    }
}

fn message(item: &Item, facility: u8, about: &About) -> Vec<u8> {
    let priority = facility * 8 + severity(&item.kind);
    let host = about.origin.split(['/', ':']).next().unwrap_or_default();
    let host: String = host.chars().filter(char::is_ascii_graphic).take(HOST).collect();
    let host = if host.is_empty() { "-" } else { host.as_str() };
    // From 1 to 2^31 - 1, and then from 1 again. The index itself is in the message.
    let sequence = item.index % 2_147_483_647 + 1;
    let head = format!(
        "<{priority}>1 {at} {host} cofferdam - {kind} [meta sequenceId=\"{sequence}\"][origin software=\"cofferdam\" \
         swVersion=\"{version}\"] ",
        at = item.at,
        kind = item.kind,
        version = about.version,
    );
    [head.as_bytes(), &item.text].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_model::UnixNanos;

    #[test]
    fn a_message_is_that_of_rfc_5424_with_its_octets_counted() {
        let item = Item {
            index: 2_147_483_647,
            at: UnixNanos::from_seconds(1_795_171_080),
            kind: "refusal".into(),
            tenant: None,
            request: None,
            text: "{\"name\":\"ü\"}".into(),
        };
        let about = About { name: "s".into(), origin: "cofferdam.example/node-1".into(), version: "1.2.3" };
        let mut out = Vec::new();
        frame(&mut out, &message(&item, 13, &about));
        let expected = "<109>1 2026-11-20T10:38:00.000000Z cofferdam.example cofferdam - refusal \
                        [meta sequenceId=\"1\"][origin software=\"cofferdam\" swVersion=\"1.2.3\"] {\"name\":\"ü\"}";
        assert_eq!(String::from_utf8(out).unwrap(), format!("{} {expected}", expected.len()));
    }
}
