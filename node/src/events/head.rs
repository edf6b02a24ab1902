//! The head of a store: how long it is, signed.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ed25519_dalek::{Signer as _, SigningKey};
use serde::{Deserialize, Serialize};
use srcos_lanes::ids::DeviceId;

use super::link::{Hash, hash_text, parse_hash, verifies};
use super::{EventStoreError, beside};

/// The form of a head, and its version.
const FORMAT: &str = "srcos-event-head-1";

/// What the signature of a head begins with, so that it cannot stand for anything else.
const HEAD_DOMAIN: &[u8] = b"srcos-event-head-1\0";

/// The most bytes of a head that are looked at; a whole one has some 400.
const HEAD_BYTES_MAX: u64 = 4096;

/// How long a store is.
///
/// A head that counts no line is written before the first one: `last` is then the hash of the line
/// that is about to be written, so that it stands for no other store. Since then linked lines without
/// a head mean that it was taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Lines.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
    /// Hash of the last line; where none is counted, of the one that is to be the first linked.
    pub last: Hash,
    /// Who signed, and the signature; nothing where no key was at hand.
    pub signed: Option<(DeviceId, [u8; 64])>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: String,
    count: u64,
    bytes: u64,
    last: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
}

impl Head {
    /// A head, signed where there is a key.
    pub fn new(count: u64, bytes: u64, last: Hash, key: Option<&SigningKey>) -> Self {
        let signed = key.map(|key| {
            let device = DeviceId(key.verifying_key().to_bytes());
            (device, key.sign(&message(count, bytes, &last)).to_bytes())
        });
        Self { count, bytes, last, signed }
    }

    /// Whether the signature is right; nothing where there is none.
    pub fn verifies(&self) -> Option<bool> {
        let (device, signature) = self.signed.as_ref()?;
        Some(verifies(device, &message(self.count, self.bytes, &self.last), signature))
    }

    /// The file of a store's head.
    pub fn file(store: &Path) -> PathBuf {
        beside(store, ".head")
    }

    /// The head of a store; nothing where there is none.
    pub fn read(store: &Path) -> Result<Option<Self>, EventStoreError> {
        let path = Self::file(store);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(EventStoreError::io("open", &path))?,
        };
        let mut text = Vec::new();
        file.take(HEAD_BYTES_MAX)
            .read_to_end(&mut text)
            .map_err(EventStoreError::io("read", &path))?;
        match Self::parse(&text) {
            Some(head) => Ok(Some(head)),
            None => Err(EventStoreError::Damaged { path, why: "it is no head".to_owned() }),
        }
    }

    /// Puts the head in place before the first line, so durably that a power cut cannot leave the
    /// line without it.
    pub fn begin(
        store: &Path,
        line: Hash,
        key: Option<&SigningKey>,
    ) -> Result<(), EventStoreError> {
        Self::new(0, 0, line, key).write(store)?;
        let folder = store.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(EventStoreError::io("write", folder))
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
        let last = parse_hash(&written.last)?;
        (written.format == FORMAT).then_some(Self {
            count: written.count,
            bytes: written.bytes,
            last,
            signed,
        })
    }

    /// Puts the head in the place of the one before, whole or not at all.
    pub fn write(&self, store: &Path) -> Result<(), EventStoreError> {
        let path = Self::file(store);
        let written = Written {
            format: FORMAT.to_owned(),
            count: self.count,
            bytes: self.bytes,
            last: hash_text(&self.last),
            by: self.signed.map(|(device, _)| HEXLOWER.encode(&device.0)),
            sig: self.signed.map(|(_, signature)| HEXLOWER.encode(&signature)),
        };
        let mut text = serde_json::to_vec(&written).unwrap_or_default();
        text.push(b'\n');
        let new = beside(&path, ".new");
        let replace = || {
            let mut file = super::store::create(&new)?;
            file.set_len(0)?;
            file.write_all(&text)?;
            file.sync_data()?;
            fs::rename(&new, &path)
        };
        replace().map_err(EventStoreError::io("write", &path))
    }
}

fn message(count: u64, bytes: u64, last: &Hash) -> Vec<u8> {
    [HEAD_DOMAIN, &count.to_be_bytes(), &bytes.to_be_bytes(), last].concat()
}
