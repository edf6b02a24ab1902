//! The device's key file, its identity on the network, and the machine's randomness.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use libp2p::identity::{self, PeerId};
use srcos_lanes::ids::DeviceId;

/// The name of the key file inside a data directory.
pub const KEY_FILE: &str = "device.key";

/// The first word of a key file: what it is, and the version of its form.
const KEY_MAGIC: &str = "srcos-device-key-1";

/// The most bytes of a key file that are looked at. A whole one has 101; anything longer is damaged.
const KEY_FILE_BYTES_MAX: u64 = 256;

/// Why a key file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no key file.
    #[error(
        "there is no device key at {}; restore it from a backup: a new key is a new device",
        path.display()
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A new key was to be written over a file that exists.
    #[error("{} exists already; a device key is never overwritten", path.display())]
    Exists {
        /// The file that is in the way.
        path: PathBuf,
    },
    /// Others than the owner may read or write the key.
    #[error(
        "the device key {} can be opened by others (mode {mode:03o}); run `chmod 600 {}`",
        path.display(), path.display()
    )]
    TooOpen {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not a key file, or has been changed.
    #[error(
        "the device key {} is damaged ({why}); restore it from a backup: a new key is a new device",
        path.display()
    )]
    Damaged {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The file system refused.
    #[error("cannot {what} the device key {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    Random(#[from] RandomError),
}

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RandomError(getrandom::Error);

/// `N` random bytes from the operating system, fit for keys, seeds and tokens.
pub fn random<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(RandomError)?;
    Ok(bytes)
}

/// The secret by which this device signs and is known.
#[derive(Clone)]
pub struct DeviceKey(ed25519_dalek::SigningKey);

impl std::fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeviceKey({})", self.device().short())
    }
}

impl DeviceKey {
    /// A new key that is not on disk.
    pub fn generate() -> Result<Self, RandomError> {
        Ok(Self::from_seed(random()?))
    }

    /// The key that a seed determines.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    /// Makes a key and writes it to `path`, which must not exist. On return it is durable.
    pub fn create(path: &Path) -> Result<Self, KeyError> {
        let key = Self::generate()?;
        write_new(path, key.to_text().as_bytes())?;
        Ok(key)
    }

    /// Reads the key at `path`, refusing one that others may open or that is damaged.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let io = |what| {
            move |source: io::Error| match source.kind() {
                io::ErrorKind::NotFound => KeyError::Missing { path: path.to_owned() },
                _ => KeyError::Io { what, path: path.to_owned(), source },
            }
        };
        let damaged = |why| KeyError::Damaged { path: path.to_owned(), why };
        let file = fs::File::open(path).map_err(io("open"))?;
        let metadata = file.metadata().map_err(io("examine"))?;
        if !metadata.is_file() {
            return Err(damaged("it is not a file"));
        }
        check_mode(path, &metadata)?;
        if metadata.len() > KEY_FILE_BYTES_MAX {
            return Err(damaged("it is too long"));
        }
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, KEY_FILE_BYTES_MAX), &mut bytes)
            .map_err(io("read"))?;
        Self::from_text(&bytes).map_err(damaged)
    }

    /// Reads the key at `path`, or makes it if there is none.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        match Self::load(path) {
            Err(KeyError::Missing { .. }) => match Self::create(path) {
                // Another process was quicker.
                Err(KeyError::Exists { .. }) => Self::load(path),
                made => made,
            },
            loaded => loaded,
        }
    }

    /// The device that this key makes.
    pub fn device(&self) -> DeviceId {
        DeviceId(self.0.verifying_key().to_bytes())
    }

    /// The key that signs entries.
    pub fn signing(&self) -> &ed25519_dalek::SigningKey {
        &self.0
    }

    /// The same key as a libp2p identity.
    pub fn network(&self) -> identity::Keypair {
        // Every 32 bytes are an ed25519 secret, so the length is all that can be wrong.
        identity::Keypair::ed25519_from_bytes(self.0.to_bytes()).expect("a seed has 32 bytes")
    }

    /// The file form: magic, the seed, and a checksum of both.
    fn to_text(&self) -> String {
        let seed = HEXLOWER.encode(&self.0.to_bytes());
        format!("{KEY_MAGIC} {seed} {}\n", checksum(&seed))
    }

    fn from_text(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.is_empty() {
            return Err("it is empty");
        }
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
        let text = text.strip_suffix('\n').ok_or("its end is missing")?;
        let mut words = text.split(' ');
        let (magic, seed, sum) = (words.next(), words.next(), words.next());
        if magic != Some(KEY_MAGIC) {
            return Err("it does not begin as a device key does");
        }
        let (Some(seed), Some(sum), None) = (seed, sum, words.next()) else {
            return Err("it has not three words");
        };
        if checksum(seed) != sum {
            return Err("its checksum does not match");
        }
        let seed = HEXLOWER.decode(seed.as_bytes()).ok().and_then(|seed| seed.try_into().ok());
        Ok(Self::from_seed(seed.ok_or("its secret is not 32 bytes")?))
    }
}

/// Sixteen hexadecimal digits over the text of a seed.
fn checksum(seed: &str) -> String {
    let hash = blake3::hash(format!("{KEY_MAGIC} {seed}").as_bytes());
    HEXLOWER.encode(&hash.as_bytes()[..8])
}

#[cfg(unix)]
fn check_mode(path: &Path, metadata: &fs::Metadata) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & !0o600 != 0 {
        return Err(KeyError::TooOpen { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: &fs::Metadata) -> Result<(), KeyError> {
    Ok(())
}

/// Writes a file that must not exist, so that it is either whole and durable, or absent.
///
/// The bytes go to a temporary name first; a hard link gives them their real one, and fails if that
/// is taken. A power cut so never leaves half a key under the real name.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let io = |what| move |source| KeyError::Io { what, path: path.to_owned(), source };
    let suffix = HEXLOWER.encode(&random::<4>()?);
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{suffix}.new"));
    let temporary = PathBuf::from(temporary);
    let result = write_synced(&temporary, bytes).and_then(|()| {
        match fs::hard_link(&temporary, path) {
            // A file system without hard links: exclusive creation is the best there is.
            Err(e) if e.kind() == io::ErrorKind::Unsupported || is_not_permitted(&e) => {
                write_synced(path, bytes)
            }
            linked => linked,
        }
    });
    // Whether or not the link was made, the temporary name has served.
    let removed = fs::remove_file(&temporary);
    match result {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            return Err(KeyError::Exists { path: path.to_owned() });
        }
        result => result.map_err(io("write"))?,
    }
    removed.map_err(io("clean up after"))?;
    sync_parent(path).map_err(io("make durable"))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// `EPERM`, which is what Linux answers to a hard link on FAT and its like.
fn is_not_permitted(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error() == Some(1)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::File::open(parent)?.sync_all()
}

/// The libp2p name of a device, or `None` if its bytes are no ed25519 public key.
pub fn peer_of_device(device: &DeviceId) -> Option<PeerId> {
    let key = identity::ed25519::PublicKey::try_from_bytes(&device.0).ok()?;
    Some(identity::PublicKey::from(key).to_peer_id())
}

/// The device behind a libp2p name, or `None` if the name is not that of an ed25519 key.
///
/// The name of an ed25519 key is the key itself under an identity multihash, so it can be read back.
pub fn device_of_peer(peer: &PeerId) -> Option<DeviceId> {
    const IDENTITY_MULTIHASH: u64 = 0;
    let hash = peer.as_ref();
    if hash.code() != IDENTITY_MULTIHASH {
        return None;
    }
    let key = identity::PublicKey::try_decode_protobuf(hash.digest()).ok()?;
    Some(DeviceId(key.try_into_ed25519().ok()?.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer as _, Verifier as _};
    use proptest::prelude::*;

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn created_key_is_private_durable_and_reads_back() {
        let dir = dir();
        let path = dir.path().join(KEY_FILE);
        let made = DeviceKey::create(&path).unwrap();
        let read = DeviceKey::load(&path).unwrap();
        assert_eq!(made.device(), read.device());
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap()).collect();
        assert_eq!(names.len(), 1, "no temporary file stays behind");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let signature = read.signing().sign(b"x");
        assert!(made.signing().verifying_key().verify(b"x", &signature).is_ok());
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let dir = dir();
        let path = dir.path().join(KEY_FILE);
        let first = DeviceKey::create(&path).unwrap();
        assert!(matches!(DeviceKey::create(&path), Err(KeyError::Exists { .. })));
        assert_eq!(DeviceKey::load_or_create(&path).unwrap().device(), first.device());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_key_is_to_be_restored() {
        let error = DeviceKey::load(&dir().path().join(KEY_FILE)).unwrap_err();
        assert!(matches!(error, KeyError::Missing { .. }));
        assert!(error.to_string().contains("backup"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_may_open_is_refused_and_the_mending_named() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = dir();
        let path = dir.path().join(KEY_FILE);
        DeviceKey::create(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o700, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = DeviceKey::load(&path).unwrap_err();
            assert!(matches!(error, KeyError::TooOpen { mode: found, .. } if found == mode));
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        DeviceKey::load(&path).unwrap();
    }

    #[test]
    fn any_changed_byte_and_any_truncation_is_damage() {
        let dir = dir();
        let path = dir.path().join(KEY_FILE);
        DeviceKey::create(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bent = whole.clone();
            bent[at] ^= 0x01;
            assert!(DeviceKey::from_text(&bent).is_err(), "byte {at}");
            assert!(DeviceKey::from_text(&whole[..at]).is_err(), "length {at}");
        }
        fs::write(&path, b"").unwrap();
        let error = DeviceKey::load(&path).unwrap_err();
        assert!(matches!(error, KeyError::Damaged { .. }), "{error}");
        fs::write(&path, [b'x'; 4096]).unwrap();
        assert!(matches!(DeviceKey::load(&path), Err(KeyError::Damaged { .. })));
    }

    #[test]
    fn random_bytes_differ() {
        assert_ne!(random::<16>().unwrap(), random::<16>().unwrap());
    }

    proptest! {
        #[test]
        fn devices_and_peers_name_each_other(seed in any::<[u8; 32]>()) {
            let key = DeviceKey::from_seed(seed);
            let peer = key.network().public().to_peer_id();
            prop_assert_eq!(peer_of_device(&key.device()), Some(peer));
            prop_assert_eq!(device_of_peer(&peer), Some(key.device()));
        }

        #[test]
        fn foreign_peers_are_no_device_and_foreign_bytes_no_panic(bytes in any::<[u8; 32]>()) {
            // A peer id that is a SHA-256 hash holds no key.
            prop_assert_eq!(device_of_peer(&hashed_peer(bytes)), None);
            let _ = peer_of_device(&DeviceId(bytes));
        }
    }

    /// A name that is a SHA-256 hash, as those of long keys are.
    fn hashed_peer(hash: [u8; 32]) -> PeerId {
        const SHA2_256: u8 = 0x12;
        PeerId::from_bytes(&[&[SHA2_256, 32], &hash[..]].concat()).unwrap()
    }
}
