//! Processes observed: one that runs, and ones whose files say this and that.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};

use super::*;

/// A process that waits for its input to end.
fn waiting() -> Child {
    Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_running_process_is_observed_as_it_is() {
    let mut child = waiting();
    let seen = observe(child.id()).unwrap();
    let again = observe(child.id()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let process = &seen.provenance.process_identity;
    assert_eq!(process.pid, Some(Number::from(child.id())));
    assert_eq!(process.ppid, Some(Number::from(std::process::id())));
    assert_eq!(process.exit, None);
    // The program that cat really is: on small systems it has another name.
    let file = fs::read(fs::canonicalize(which("cat")).unwrap()).unwrap();
    let hex: String = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
    let executable = &seen.provenance.executable_identity;
    assert_eq!(executable.content_hash, Some(format!("sha256:{hex}")));
    assert!(!executable.display_path.contains('/'));
    assert_eq!(seen.provenance.causality, again.provenance.causality);
    assert_eq!(seen.provenance.causality.parent_event_id, None);
    assert!(matches!(observe(child.id()), Err(ObserveError::Absent(_))));
}

fn which(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.exists()).unwrap()
}

/// A folder of process files, and the root of a system, that hold what a test puts there.
struct Made {
    dir: tempfile::TempDir,
}

impl Made {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc/self/ns")).unwrap();
        Self { dir }
    }

    fn process(&self, pid: u32, name: &str, parent: u32, terminal: u32, files: &[(&str, &str)]) {
        let folder = self.dir.path().join("proc").join(pid.to_string());
        fs::create_dir_all(folder.join("ns")).unwrap();
        let rest = "0 ".repeat(14);
        let stat = format!("{pid} ({name}) S {parent} 1 1 {terminal} {rest}777 0 0");
        fs::write(folder.join("stat"), stat).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    fn observe(&self, pid: u32) -> Observation {
        observe_in(&self.dir.path().join("proc"), &self.dir.path().join("root"), pid).unwrap()
    }
}

#[test]
fn what_cannot_be_read_is_unknown_and_says_why() {
    let made = Made::new();
    made.process(2, "kworker/0:1", 0, 0, &[]);
    let Observation { provenance, unknown } = made.observe(2);
    let process = &provenance.process_identity;
    assert_eq!(process.uid_class, UidClass::Unknown);
    assert_eq!(process.parent_command_class, ParentClass::Unknown);
    assert_eq!(process.environment_class, EnvironmentClass::Unknown);
    let executable = &provenance.executable_identity;
    assert_eq!(executable.display_path, "[kworker/0:1]");
    assert_eq!(executable.content_hash, None);
    assert_eq!(executable.package_origin, PackageOrigin::Unknown);
    let members: Vec<&str> = unknown.iter().map(|(member, _)| *member).collect();
    for member in [
        "process_identity.uid_class",
        "process_identity.gid_class",
        "process_identity.parent_command_class",
        "process_identity.environment_class",
        "process_identity.launch_reason",
        "executable_identity.signature_state",
        "executable_identity.content_hash",
        "executable_identity.path_class",
        "executable_identity.package_origin",
    ] {
        assert!(members.contains(&member), "{member} is unknown and nobody says why");
    }
    assert!(unknown.iter().all(|(_, why)| !why.is_empty()));
}

#[test]
fn a_command_of_a_person_at_a_shell_is_told_from_a_script() {
    let made = Made::new();
    let status = "Name:\tx\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\n";
    let session = "0::/user.slice/user-1000.slice/session-2.scope\n";
    let files = [("status", status), ("cgroup", session)];
    made.process(50, "bash", 49, 34_816, &files);
    made.process(51, "vim", 50, 34_816, &files);
    made.process(52, "vim", 50, 0, &files);
    let at_terminal = made.observe(51).provenance;
    let process = &at_terminal.process_identity;
    assert_eq!(process.uid_class, UidClass::User);
    assert_eq!(process.gid_class, GidClass::Staff);
    assert_eq!(process.parent_command_class, ParentClass::InteractiveShell);
    assert_eq!(process.environment_class, EnvironmentClass::UserInteractive);
    assert_eq!(process.launch_reason, LaunchReason::Interactive);
    let in_script = made.observe(52).provenance;
    assert_eq!(in_script.process_identity.parent_command_class, ParentClass::Unknown);
    assert_eq!(in_script.process_identity.launch_reason, LaunchReason::Unknown);
}

#[test]
fn an_orphan_is_not_taken_for_a_service() {
    let made = Made::new();
    made.process(1, "init", 0, 0, &[]);
    made.process(60, "leftover", 1, 0, &[("cgroup", "0::/user.slice/x\n")]);
    made.process(61, "daemon", 1, 0, &[("cgroup", "0::/system.slice/daemon.service\n")]);
    let orphan = made.observe(60).provenance;
    assert_eq!(orphan.process_identity.parent_command_class, ParentClass::Unknown);
    let service = made.observe(61).provenance;
    assert_eq!(service.process_identity.parent_command_class, ParentClass::SystemService);
    assert_eq!(service.process_identity.launch_reason, LaunchReason::ServiceActivation);
}

#[cfg(unix)]
#[test]
fn a_package_is_named_only_where_its_database_speaks_of_the_same_files() {
    let made = Made::new();
    let info = made.dir.path().join("root/var/lib/dpkg/info");
    fs::create_dir_all(&info).unwrap();
    fs::write(info.join("tools:amd64.list"), "/.\n/bin\n/bin/tool\n").unwrap();
    let processes = made.dir.path().join("proc");
    symlink("mnt:[1]", processes.join("self/ns/mnt")).unwrap();
    for (pid, mounts) in [(70, "mnt:[1]"), (71, "mnt:[2]")] {
        made.process(pid, "tool", 0, 0, &[]);
        let folder = processes.join(pid.to_string());
        symlink("/usr/bin/tool", folder.join("exe")).unwrap();
        symlink("/", folder.join("root")).unwrap();
        symlink(mounts, folder.join("ns/mnt")).unwrap();
    }
    let here = made.observe(70).provenance;
    assert_eq!(here.executable_identity.package_origin, PackageOrigin::PackageManager);
    assert_eq!(here.executable_identity.package_receipt_ref.as_deref(), Some("pkg:deb/tools"));
    let elsewhere = made.observe(71).provenance;
    // Not what the database here says; where the tests run in a container, that much is known.
    assert_ne!(elsewhere.executable_identity.package_origin, PackageOrigin::PackageManager);
    assert_eq!(elsewhere.executable_identity.package_receipt_ref, None);
}

#[test]
fn places_say_what_they_mean_and_no_more() {
    let check = |text: &str, file_system: Option<&str>, class: PathClass| {
        let place = classify::path(Path::new(text), file_system, EnvironmentClass::Unknown);
        assert_eq!(place, class, "{text}");
    };
    check("/usr/bin/vim", Some("ext4"), PathClass::System);
    check("/usr/local/bin/vim", None, PathClass::UserLocal);
    check("/home/x/bin/vim", None, PathClass::UserLocal);
    check("/home/x/bin/vim", Some("nfs4"), PathClass::RemoteMount);
    check("/nix/store/abc-vim/bin/vim", None, PathClass::PackageManager);
    check("/tmp/x", None, PathClass::EphemeralTmp);
    check("/tmpfoo/x", None, PathClass::Unknown);
    check("/memfd:x", None, PathClass::EphemeralTmp);
    check("/opt/vendor/app", None, PathClass::Unknown);
}

#[test]
fn a_name_with_brackets_and_spaces_is_read_whole() {
    let line = format!("7 (a) (b c) S 3 1 1 0 {}99 0", "0 ".repeat(14));
    let stat = procfs::Stat::parse(&line).unwrap();
    assert_eq!((stat.name.as_str(), stat.parent, stat.started), ("a) (b c", 3, 99));
    for broken in ["", "7", "7 (a", "7 (a) S", "7 (a) S x 1 1 0"] {
        assert_eq!(procfs::Stat::parse(broken), None, "{broken}");
    }
}
