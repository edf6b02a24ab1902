//! What links a line of the store to the one before it.

use std::ops::Range;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use srcos_lanes::ids::DeviceId;

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// How every linked line begins. The member comes first of all, as it does in sorted order.
pub(super) const LINE_START: &[u8] = b"{\"_link\":";

/// What the signature of a line begins with, so that it cannot stand for anything else.
const LINE_DOMAIN: &[u8] = b"srcos-event-line-1\0";

/// The hash of bytes.
pub fn sha256(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// A hash as documents show it.
pub fn hash_text(hash: &Hash) -> String {
    format!("sha256:{}", HEXLOWER.encode(hash))
}

/// Reads what [`hash_text`] wrote.
pub fn parse_hash(text: &str) -> Option<Hash> {
    let digits = text.strip_prefix("sha256:")?;
    HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()?.try_into().ok()
}

/// The link of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The line's number, from 1.
    pub n: u64,
    /// The hash of the line before, without its end; of the first linked line, the hash of all bytes
    /// of the file before it.
    pub prev: Hash,
    /// Who signed, and the signature; nothing where no key was at hand.
    pub signed: Option<(DeviceId, [u8; 64])>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    n: u64,
    prev: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
}

impl Link {
    /// The link of a new line, signed where there is a key.
    pub fn new(n: u64, prev: Hash, event: &[u8], key: Option<&SigningKey>) -> Self {
        let signed = key.map(|key| {
            let device = DeviceId(key.verifying_key().to_bytes());
            (device, key.sign(&message(n, &prev, &sha256(event))).to_bytes())
        });
        Self { n, prev, signed }
    }

    /// Whether the signature is right for an event with this hash; nothing where there is none.
    pub fn verifies(&self, event_hash: &Hash) -> Option<bool> {
        let (device, signature) = self.signed.as_ref()?;
        Some(verifies(device, &message(self.n, &self.prev, event_hash), signature))
    }

    /// The whole line of an event, given as canonical text, without the line's end.
    pub fn line(&self, event: &str) -> String {
        let written = Written {
            by: self.signed.map(|(device, _)| HEXLOWER.encode(&device.0)),
            n: self.n,
            prev: hash_text(&self.prev),
            sig: self.signed.map(|(_, signature)| HEXLOWER.encode(&signature)),
        };
        let link = serde_json::to_string(&written).unwrap_or_default();
        format!("{{\"_link\":{link},{}", event.get(1..).unwrap_or_default())
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let written: Written = serde_json::from_slice(text).ok()?;
        let decode = |text: &str| HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
        let signed = match (&written.by, &written.sig) {
            (Some(by), Some(sig)) => {
                let device = DeviceId(decode(by)?.try_into().ok()?);
                Some((device, decode(sig)?.try_into().ok()?))
            }
            (None, None) => None,
            _ => return None,
        };
        Some(Self { n: written.n, prev: parse_hash(&written.prev)?, signed })
    }
}

fn message(n: u64, prev: &Hash, event_hash: &Hash) -> Vec<u8> {
    [LINE_DOMAIN, &n.to_be_bytes(), prev, event_hash].concat()
}

/// Whether a signature of a device is right.
pub fn verifies(device: &DeviceId, message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(&device.0)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}

/// A line taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parts {
    /// A line of this store: its link, and where the event's members lie. The byte before them is the
    /// comma after the link; with an opening brace in its place they are the event.
    Linked(Link, Range<usize>),
    /// A line without a link.
    Plain,
    /// A line that begins as one of this store and does not go on so.
    Broken,
}

/// Takes a line apart, which comes without its end.
pub fn parts(line: &[u8]) -> Parts {
    let Some(rest) = line.strip_prefix(LINE_START) else { return Parts::Plain };
    // A link holds no braces, so the first one that closes is its own.
    let Some(length) = memchr::memchr(b'}', rest) else { return Parts::Broken };
    let after = LINE_START.len() + length + 1;
    match (Link::parse(&rest[..=length]), line.get(after)) {
        (Some(link), Some(b',')) => Parts::Linked(link, after + 1..line.len()),
        _ => Parts::Broken,
    }
}

/// The event of a line as JSON text.
pub fn event_text(line: &[u8], parts: &Parts) -> Vec<u8> {
    match parts {
        Parts::Linked(_, members) => [b"{", &line[members.clone()]].concat(),
        Parts::Plain | Parts::Broken => line.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_comes_apart_as_it_was_put_together() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let event = r#"{"a":"}","event_id":"evt_1"}"#;
        for key in [Some(&key), None] {
            let link = Link::new(7, [9; 32], event.as_bytes(), key);
            let line = link.line(event);
            assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{line}");
            let parts = parts(line.as_bytes());
            assert!(matches!(parts, Parts::Linked(read, _) if read == link), "{line}");
            assert_eq!(event_text(line.as_bytes(), &parts), event.as_bytes());
            assert_eq!(link.verifies(&sha256(event.as_bytes())), key.map(|_| true));
            assert_eq!(link.verifies(&sha256(b"{}")), key.map(|_| false));
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_taking_it_apart_panic(line in any::<Vec<u8>>()) {
            let parts = parts(&line);
            let _ = event_text(&line, &parts);
        }

        #[test]
        fn no_line_of_ours_that_is_bent_makes_it_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let mut line = Link::new(1, [0; 32], b"{}", None).line(r#"{"a":1}"#).into_bytes();
            let at = at.index(line.len());
            line[at] = byte;
            line.truncate(cut.index(line.len() + 1));
            let parts = parts(&line);
            let _ = event_text(&line, &parts);
        }
    }
}
