//! The data directory: what lies where, how it is made, and how its store is opened.
//!
//! | file | what |
//! |---|---|
//! | `device.key` | the device's private key |
//! | `store.redb` | the store |
//! | `node.sock` | the unix socket, while a daemon runs |
//! | `http.token` | the bearer token of the HTTP interface |
//! | `events.jsonl`, with `.head` and `.ids` | the events that were kept |
//!
//! All are for their owner alone (`private`).
//!
//! Beside the directory, as `.NAME.opens`, lies how often the store was opened and how far it reached.
//! A directory that was put back from a backup, or copied, disagrees with it, and then the node writes
//! under a new incarnation.

mod head;
mod outside;
mod private;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use srcos_lanes::error::StoreError;
use srcos_lanes::ids::{MonoMillis, Now, WallMillis};
use srcos_lanes::store::{self, Store};
use srcos_replication::roster::{Roster, RosterError};

pub use self::outside::Mark;
use self::outside::Outside;
use crate::api::{ApiError, ErrorKind};
use crate::keys::{DeviceKey, random};

/// Longest path of a data directory, in bytes: with the longest name of a socket in it, and a zero at
/// its end, it fits into what the system has for the address of one.
pub const DIR_BYTES_MAX: usize = SOCKET_ADDRESS_BYTES - 1 - "/.node.sock".len();
const SOCKET_ADDRESS_BYTES: usize = if cfg!(target_os = "linux") { 108 } else { 104 };

/// The name of a device whose host has none.
const NAME_DEFAULT: &str = "device";

/// Files that earlier versions made readable for others, or that a copy may have made so.
const PRIVATE_FILES: [&str; 5] =
    ["store.redb", "store.redb.new", "events.jsonl", "events.jsonl.head", "events.jsonl.ids"];

/// Reads both clocks. Monotonic time counts from the making of this value.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The time now. A wall clock before 1970 reads as 1970.
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            mono: MonoMillis(self.start.elapsed().as_millis() as u64),
            wall: WallMillis(wall.as_millis() as u64),
        }
    }

    /// The instant of a monotonic time of this clock.
    pub fn instant(&self, at: MonoMillis) -> Instant {
        self.start + std::time::Duration::from_millis(at.0)
    }
}

/// A data directory on this machine.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
}

impl DataDir {
    /// The directory at a path, whether it exists or not.
    pub fn new(path: &Path) -> Self {
        // The name of "." is what it stands for; the count beside it needs that name.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it has a store.
    pub fn is_initialised(&self) -> bool {
        self.store_file().exists()
    }

    /// The file of the store.
    pub fn store_file(&self) -> PathBuf {
        self.path.join("store.redb")
    }

    /// The file of the device's key.
    pub fn key_file(&self) -> PathBuf {
        self.path.join("device.key")
    }

    /// All that the node writes, whether it is there or not: the directory, and what lies beside it.
    pub fn places(&self) -> Vec<PathBuf> {
        let beside = self.opens_file();
        let new = beside.as_deref().map(Outside::new_file);
        [Some(self.path.clone()), beside, new].into_iter().flatten().collect()
    }

    fn opens_file(&self) -> Option<PathBuf> {
        let name = self.path.file_name()?;
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(".opens");
        Some(self.path.parent()?.join(beside))
    }

    /// Makes the directory: key, store, and a mesh of one. Fails when there is a store already.
    pub fn init(&self, name: Option<&str>) -> Result<(DeviceKey, Roster), ApiError> {
        if self.is_initialised() {
            return Err(ApiError::new(
                ErrorKind::BadInput,
                "already_initialised",
                format!("{} has a store already", self.path.display()),
                "use it, or name another directory with --data-dir",
            ));
        }
        let absolute = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        check_length(&absolute)?;
        if !private::make_dir(&self.path).map_err(|error| self.io("cannot be made", &error))? {
            let message = "others may enter it, and something else lies in it";
            return Err(ApiError::new(
                ErrorKind::BadInput,
                "data_dir_open_to_others",
                format!("{} is not fit for a data directory: {message}", self.path.display()),
                "name a directory that is not there yet with --data-dir, or take its mode to 700",
            ));
        }
        // Now that it exists its real name is known.
        let dir = Self::new(&self.path);
        check_length(&dir.path)?;
        dir.check_beside()?;
        let key = DeviceKey::load_or_create(&dir.key_file()).map_err(key_error)?;
        let name = name.map_or_else(host_name, str::to_owned);
        let nonce = random().map_err(internal)?;
        let roster = Roster::found(&name, nonce, Clock::start().now().wall, key.signing())
            .map_err(|error| roster_error(&error))?;
        // Made under another name first, so that a store is there whole or not at all.
        let making = dir.path.join("store.redb.new");
        let _ = fs::remove_file(&making);
        let options = dir.options(&key)?;
        let mut store = Store::create(&making, &options).map_err(store_error)?;
        private::close(&making, private::FILE_MODE)
            .map_err(|error| dir.io("cannot be closed to others", &error))?;
        store.set_mesh(roster.mesh()).map_err(store_error)?;
        store.put_roster_record(&roster.founding().0).map_err(store_error)?;
        let outside = outside(&store)?;
        store.close().map_err(store_error)?;
        fs::rename(&making, dir.store_file())
            .and_then(|()| File::open(&dir.path)?.sync_all())
            .map_err(|error| dir.io("cannot be written", &error))?;
        dir.keep_outside(outside);
        Ok((key, roster))
    }

    /// The device's key.
    pub fn key(&self) -> Result<DeviceKey, ApiError> {
        DeviceKey::load(&self.key_file()).map_err(key_error)
    }

    /// Opens the store for writing.
    pub fn open(&self) -> Result<(DeviceKey, Store), ApiError> {
        self.check_initialised()?;
        self.close_to_others()?;
        self.check_beside()?;
        if self.read_outside().is_none() {
            let file = self.opens_file().unwrap_or_default();
            tracing::warn!(
                file = %file.display(),
                "the count of opens is not beside the data directory: this device cannot tell whether \
                 its store was put back, and goes on under another of its {} names; keep that file \
                 with the directory",
                store::DEVICE_JOURNALS_MAX
            );
        }
        let key = self.key()?;
        let mut store = Store::open(&self.store_file(), &self.options(&key)?)
            .map_err(|e| self.not_opened(e))?;
        let now = outside(&store)?;
        // The store itself compares the count of opens; what it cannot know is how far it once reached.
        let same = |before: &Outside| before.opens + 1 == now.opens;
        if self.read_outside().filter(same).is_some_and(|before| before.feed_next > now.feed_next) {
            tracing::warn!(
                "this store has been further: it was put back, and writes under a new name"
            );
            let random = u32::from_be_bytes(random().map_err(internal)?);
            store.begin_incarnation(random).map_err(store_error)?;
            store.commit().map_err(store_error)?;
        }
        self.keep_outside(now);
        Ok((key, store))
    }

    /// By which it is noted beside the directory how far its open store reaches.
    pub fn mark(&self, store: &Store) -> Result<Option<Mark>, ApiError> {
        let Some(file) = self.opens_file() else { return Ok(None) };
        // Without it a store that is put back is recognised in fewer cases.
        Ok(Mark::open(&file, outside(store)?).ok())
    }

    /// Opens the store for reading only; changes nothing.
    pub fn open_reader(&self) -> Result<store::Reader, ApiError> {
        self.check_initialised()?;
        if [self.path.clone(), self.store_file()]
            .iter()
            .all(|path| private::is_open(path).is_ok_and(|open| open))
        {
            tracing::warn!(
                dir = %self.path.display(),
                "other users can read this store; the next command that writes closes it to them"
            );
        }
        store::Reader::open(&self.store_file()).map_err(|error| self.not_opened(error))
    }

    /// Why the store could not be opened: a file that is damaged is told from a disk that failed and
    /// from a node that was killed.
    fn not_opened(&self, error: StoreError) -> ApiError {
        let file = self.store_file();
        let unclear = matches!(error, StoreError::NeedsRecovery | StoreError::Io(_));
        let error = match unclear.then(|| head::damage(&file)).flatten() {
            Some(what) => StoreError::Damaged { place: "file".to_owned(), what },
            None => error,
        };
        let error = store_error(error);
        if error.kind == ErrorKind::StoreDamaged {
            error.at(file.display().to_string())
        } else {
            error
        }
    }

    fn check_initialised(&self) -> Result<(), ApiError> {
        match fs::symlink_metadata(self.store_file()) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == IoErrorKind::PermissionDenied => {
                return Err(self.io("cannot be looked into", &error));
            }
            Err(_) => {}
        }
        Err(ApiError::new(
            ErrorKind::NotFound,
            "not_initialised",
            format!("{} has no store", self.path.display()),
            "make one with: srcos-node init",
        ))
    }

    /// Takes from others what they may do with the directory and the files in it. The key is not
    /// among them: one that others could read is no secret any more, and is refused.
    fn close_to_others(&self) -> Result<(), ApiError> {
        let files = PRIVATE_FILES.iter().map(|name| (self.path.join(name), private::FILE_MODE));
        for (path, mode) in files.chain([(self.path.clone(), private::DIR_MODE)]) {
            let closed = private::close(&path, mode).map_err(|error| {
                let what = format!("can be read by others, and that cannot be mended: {error}");
                let message = format!("{} {what}", path.display());
                let hint = format!("as its owner, run: chmod {mode:o} {}", path.display());
                ApiError::new(ErrorKind::StoreDamaged, "data_dir_open_to_others", message, hint)
            })?;
            if closed {
                tracing::warn!(path = %path.display(), "other users could read this; not any more");
            }
        }
        Ok(())
    }

    fn options(&self, key: &DeviceKey) -> Result<store::OpenOptions, ApiError> {
        Ok(store::OpenOptions {
            device: key.device(),
            opens_outside: self.read_outside().map(|outside| outside.opens),
            random: u32::from_be_bytes(random().map_err(internal)?),
        })
    }

    fn read_outside(&self) -> Option<Outside> {
        Outside::read(&self.opens_file()?)
    }

    /// That the numbers can be kept beside the directory. A service often may not write into the
    /// folder above its own: each open would then begin a new incarnation, of which a device has
    /// few.
    fn check_beside(&self) -> Result<(), ApiError> {
        let Some(file) = self.opens_file() else { return Ok(()) };
        let Err(error) = Outside::probe(&file) else { return Ok(()) };
        if matches!(error.kind(), IoErrorKind::StorageFull | IoErrorKind::QuotaExceeded) {
            return Ok(());
        }
        let inside = self.path.join("data").display().to_string();
        let how = if self.is_initialised() {
            format!("stop the node, move all that is in this one into {inside}, then use")
        } else {
            "use a directory inside of this one:".to_owned()
        };
        Err(ApiError::new(
            ErrorKind::StoreDamaged,
            "data_dir_unusable",
            format!("{} cannot be written beside the data directory: {error}", file.display()),
            format!(
                "by it a store that was put back is told from the newest one; {how} --data-dir {inside}"
            ),
        ))
    }

    /// Keeps the numbers beside the directory. When that fails, the next open starts a new
    /// incarnation: a few of those cost little and lose nothing.
    fn keep_outside(&self, outside: Outside) {
        let Some(file) = self.opens_file() else { return };
        if let Err(error) = outside.replace(&file) {
            tracing::warn!(file = %file.display(), %error, "the count of opens cannot be kept");
        }
    }

    fn io(&self, what: &str, error: &std::io::Error) -> ApiError {
        let hint = match error.kind() {
            IoErrorKind::PermissionDenied | IoErrorKind::ReadOnlyFilesystem => {
                "run it as the directory's owner, or name another directory with --data-dir"
            }
            IoErrorKind::StorageFull => "free some space on that disk",
            _ => "check the path and the disk",
        };
        let message = format!("{} {what}: {error}", self.path.display());
        ApiError::new(ErrorKind::StoreDamaged, "data_dir_unusable", message, hint)
    }
}

/// Whether a daemon can have its socket in a directory: the system takes no long paths for those.
pub fn check_length(dir: &Path) -> Result<(), ApiError> {
    let bytes = dir.as_os_str().len();
    if bytes <= DIR_BYTES_MAX {
        return Ok(());
    }
    let message = format!(
        "the path of the data directory has {bytes} bytes; the limit is {DIR_BYTES_MAX}, or its unix \
         socket could not be made"
    );
    let hint = "name a directory with a shorter path with --data-dir";
    let error = ApiError::new(ErrorKind::BadInput, "data_dir_path_too_long", message, hint);
    Err(error.at(dir.display().to_string()))
}

fn outside(store: &Store) -> Result<Outside, ApiError> {
    let opens = store.opens().map_err(store_error)?;
    Ok(Outside { opens, feed_next: store.feed_next() })
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| fs::read_to_string("/etc/hostname"))
        .unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| !c.is_control()).take(60).collect();
    if name.is_empty() { NAME_DEFAULT.to_owned() } else { name }
}

/// A failure of the store, as callers see it.
pub fn store_error(error: StoreError) -> ApiError {
    let (kind, code, hint) = match &error {
        StoreError::Absent(_) => {
            (ErrorKind::NotFound, "not_initialised", "make one with: srcos-node init")
        }
        StoreError::Locked => (
            ErrorKind::StoreLocked,
            "store_locked",
            "wait for the other command, or stop the node that has it open",
        ),
        StoreError::NeedsRecovery => (
            ErrorKind::StoreLocked,
            "store_needs_recovery",
            "start the node, which recovers it by itself: srcos-node run",
        ),
        StoreError::Newer { .. } => {
            (ErrorKind::StoreDamaged, "store_newer", "update srcos-node on this device")
        }
        StoreError::OtherDevice { .. } => (
            ErrorKind::StoreDamaged,
            "store_of_other_device",
            "put back the device.key that belongs to this store",
        ),
        StoreError::Io(_) | StoreError::Latched(_) => (
            ErrorKind::StoreDamaged,
            "store_failed",
            "check the disk's space and permissions, then restart the node",
        ),
        _ => (
            ErrorKind::StoreDamaged,
            "store_damaged",
            "put back a backup, or make a new data directory and pair it; nothing was changed",
        ),
    };
    ApiError::new(kind, code, error.to_string(), hint)
}

/// A failure of the roster, as callers see it.
pub fn roster_error(error: &RosterError) -> ApiError {
    ApiError::new(
        ErrorKind::Refused,
        "roster_refused",
        error.to_string(),
        "see who belongs to the mesh with: srcos-node peers",
    )
}

fn key_error(error: crate::keys::KeyError) -> ApiError {
    let hint = match error {
        crate::keys::KeyError::Missing { .. } => {
            "put it back from a backup; without it the store beside it is of no use: name another \
             directory with --data-dir, run srcos-node init there, and pair it"
        }
        _ => "the key is the device's identity; put back the right file, mode 0600",
    };
    ApiError::new(ErrorKind::StoreDamaged, "key_unusable", error.to_string(), hint)
}

/// A fault that no input explains.
pub fn internal(error: impl std::fmt::Display) -> ApiError {
    ApiError::internal(error.to_string())
}
