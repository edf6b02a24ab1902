//! What numbers, names and places say about a process. Where they can mean several things, nothing.

use std::path::Path;

use srcos_schemas::event::vocabulary::PackageOrigin;
use srcos_schemas::process::{
    EnvironmentClass, GidClass, LaunchReason, ParentClass, PathClass, UidClass,
};

/// The first number that is given to people; below are services.
const FIRST_PERSON: u32 = 1000;

/// The number of nobody: services that need no rights at all.
const NOBODY: u32 = 65_534;

pub(super) fn uid(uid: u32) -> UidClass {
    match uid {
        0 => UidClass::Root,
        NOBODY => UidClass::Service,
        FIRST_PERSON.. => UidClass::User,
        _ => UidClass::Service,
    }
}

pub(super) fn gid(gid: u32) -> GidClass {
    match gid {
        0 => GidClass::Admin,
        NOBODY => GidClass::Service,
        FIRST_PERSON.. => GidClass::Staff,
        _ => GidClass::Service,
    }
}

const SHELLS: [&str; 9] = ["ash", "bash", "csh", "dash", "fish", "ksh", "sh", "tcsh", "zsh"];
const TIMERS: [&str; 5] = ["anacron", "atd", "cron", "crond", "fcron"];
const INSTALLERS: [&str; 10] =
    ["apk", "apt", "apt-get", "dnf", "dpkg", "pacman", "rpm", "snapd", "yum", "zypper"];
const REMOTE: [&str; 4] = ["dropbear", "sshd", "sshd-auth", "sshd-session"];

/// What sort of command a parent of this name is. A shell without a terminal runs a script, and who
/// runs that is not known.
pub(super) fn parent(name: &str, has_terminal: bool) -> ParentClass {
    // A login shell puts a dash before its name.
    let name = name.trim_start_matches('-').to_ascii_lowercase();
    let is = |names: &[&str]| names.contains(&&*name);
    if is(&SHELLS) && has_terminal {
        ParentClass::InteractiveShell
    } else if is(&TIMERS) {
        ParentClass::ScheduledJob
    } else if is(&INSTALLERS) {
        ParentClass::PackageHook
    } else if is(&REMOTE) {
        ParentClass::RemoteSession
    } else {
        ParentClass::Unknown
    }
}

pub(super) fn launch_reason(parent: ParentClass, has_terminal: bool) -> LaunchReason {
    match parent {
        ParentClass::InteractiveShell => LaunchReason::Interactive,
        ParentClass::RemoteSession if has_terminal => LaunchReason::Interactive,
        ParentClass::ScheduledJob => LaunchReason::Scheduled,
        ParentClass::PackageHook => LaunchReason::PackageScript,
        ParentClass::SystemService => LaunchReason::ServiceActivation,
        ParentClass::AgentAction => LaunchReason::AgentDispatch,
        ParentClass::RemoteSession | ParentClass::Unknown => LaunchReason::Unknown,
    }
}

/// Words in the name of a control group that only container managers put there.
const CONTAINERS: [&str; 6] =
    ["/docker", "/kubepods", "/libpod", "/lxc", "/containerd", "/machine.slice"];

pub(super) fn environment(
    control_group: &str,
    marked_as_container: bool,
    has_terminal: bool,
) -> EnvironmentClass {
    let names = |words: &[&str]| words.iter().any(|word| control_group.contains(word));
    if marked_as_container || names(&CONTAINERS) {
        EnvironmentClass::Container
    } else if names(&["/system.slice/"]) {
        EnvironmentClass::SystemService
    } else if names(&["/user.slice/"]) && has_terminal {
        EnvironmentClass::UserInteractive
    } else {
        EnvironmentClass::Unknown
    }
}

const REMOTE_FILE_SYSTEMS: [&str; 9] =
    ["9p", "afs", "ceph", "cifs", "fuse.sshfs", "glusterfs", "nfs", "nfs4", "smb3"];
const PACKAGED: [&str; 7] = [
    "/gnu/store",
    "/home/linuxbrew/.linuxbrew",
    "/nix/store",
    "/opt/homebrew",
    "/snap",
    "/var/lib/flatpak",
    "/var/lib/snapd",
];
const PASSING: [&str; 5] = ["/dev/shm", "/run", "/tmp", "/var/run", "/var/tmp"];
const OF_USERS: [&str; 3] = ["/home", "/root", "/usr/local"];
const OF_SYSTEM: [&str; 7] =
    ["/bin", "/lib", "/lib64", "/sbin", "/usr/bin", "/usr/lib", "/usr/sbin"];

/// In what sort of place an executable lies.
pub(super) fn path(
    path: &Path,
    file_system: Option<&str>,
    environment: EnvironmentClass,
) -> PathClass {
    let lies_in = |places: &[&str]| places.iter().any(|place| path.starts_with(place));
    let in_memory = path.to_string_lossy().starts_with("/memfd:");
    match file_system {
        Some(kind) if REMOTE_FILE_SYSTEMS.contains(&kind) => PathClass::RemoteMount,
        Some("tmpfs" | "ramfs") => PathClass::EphemeralTmp,
        _ if in_memory || lies_in(&PASSING) => PathClass::EphemeralTmp,
        _ if environment == EnvironmentClass::Container => PathClass::Container,
        _ if lies_in(&PACKAGED) => PathClass::PackageManager,
        _ if lies_in(&OF_USERS) => PathClass::UserLocal,
        _ if lies_in(&OF_SYSTEM) || path.starts_with("/usr/libexec") => PathClass::System,
        _ => PathClass::Unknown,
    }
}

/// Who puts files into a sort of place, where only one does.
pub(super) fn origin_of_place(class: PathClass) -> PackageOrigin {
    match class {
        PathClass::PackageManager => PackageOrigin::PackageManager,
        PathClass::UserLocal => PackageOrigin::UserLocal,
        PathClass::Container => PackageOrigin::Container,
        PathClass::RemoteMount => PackageOrigin::Remote,
        // What lies with the system may have been put there by anybody who administers it.
        PathClass::System | PathClass::EphemeralTmp | PathClass::Unknown => PackageOrigin::Unknown,
    }
}
