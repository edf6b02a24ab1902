//! Stores that are put back, and stores that are not.

use srcos_lanes::ids::Author;
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::{Action, Op, PutContent};
use tempfile::TempDir;

use super::*;
use crate::core::Core;

struct Place {
    dir: DataDir,
    _place: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = TempDir::new().unwrap();
        let dir = DataDir::new(&place.path().join("node"));
        dir.init(Some("laptop")).unwrap();
        Self { dir: DataDir::new(dir.path()), _place: place }
    }

    fn open(&self) -> Core {
        Core::open(Clock::start(), &self.dir).unwrap()
    }

    fn author(&self) -> Author {
        let core = self.open();
        let author = core.store.author();
        core.store.close().unwrap();
        author
    }

    fn backup(&self) -> Vec<u8> {
        fs::read(self.dir.store_file()).unwrap()
    }

    fn put_back(&self, backup: &[u8]) {
        fs::write(self.dir.store_file(), backup).unwrap();
    }
}

fn put(core: &mut Core, id: &str) {
    let now = core.now();
    let action = Action::Put(PutContent { body: 1.into(), ..PutContent::default() });
    let op = Op { id: id.into(), action, if_heads: None };
    core.engine.write(&mut core.store, now, LaneId::Normal, &[op]).unwrap();
    core.commit().unwrap();
}

#[test]
fn store_that_is_put_back_begins_a_new_incarnation_though_it_was_not_opened_in_between() {
    let place = Place::new();
    let mut core = place.open();
    put(&mut core, "before");
    let backup = place.backup();
    put(&mut core, "after");
    let author = core.store.author();
    core.store.close().unwrap();
    place.put_back(&backup);
    let restored = place.author();
    assert_ne!(restored, author);
    // Once is enough: what is there now is the newest.
    assert_eq!(place.author(), restored);
}

#[test]
fn store_that_is_put_back_after_a_crash_begins_a_new_incarnation() {
    let place = Place::new();
    let mut core = place.open();
    put(&mut core, "before");
    let backup = place.backup();
    put(&mut core, "after");
    let author = core.store.author();
    // Dropped without being closed, as by a kill.
    drop(core);
    place.put_back(&backup);
    assert_ne!(place.author(), author);
}

#[test]
fn store_that_was_only_killed_or_closed_goes_on_as_it_was() {
    let place = Place::new();
    let author = place.author();
    for n in 0..3 {
        let mut core = place.open();
        assert_eq!(core.store.author(), author);
        put(&mut core, &format!("x{n}"));
        drop(core);
        assert_eq!(place.author(), author);
    }
}

#[test]
fn what_lies_outside_is_read_as_earlier_versions_wrote_it_and_refused_when_torn() {
    let place = TempDir::new().unwrap();
    let file = place.path().join(".node.opens");
    fs::write(&file, "7\n").unwrap();
    assert_eq!(Outside::read(&file), Some(Outside { opens: 7, feed_next: 0 }));
    Outside { opens: 8, feed_next: 9 }.replace(&file).unwrap();
    let mut mark = Mark::open(&file, Outside::read(&file).unwrap()).unwrap();
    mark.note(1_000);
    mark.note(5);
    assert_eq!(Outside::read(&file), Some(Outside { opens: 8, feed_next: 1_000 }));
    for torn in ["", "x", "7 x\n"] {
        fs::write(&file, torn).unwrap();
        assert_eq!(Outside::read(&file), None, "{torn:?}");
    }
}

/// Each open would be another incarnation, until a device has none left.
#[test]
fn directory_beside_which_nothing_can_be_kept_is_refused_before_anything_is_written() {
    let place = Place::new();
    put(&mut place.open(), "x");
    let author = place.author();
    let beside = |dir: &DataDir| {
        dir.opens_file().unwrap().with_extension(format!("opens.{}", std::process::id()))
    };
    let in_the_way = beside(&place.dir);
    fs::create_dir(&in_the_way).unwrap();
    for _ in 0..2 {
        let error = place.dir.open().unwrap_err();
        assert_eq!(error.code, "data_dir_unusable", "{error:?}");
        assert!(error.hint.contains("move all"), "{error:?}");
    }
    let other = DataDir::new(&place.dir.path().with_file_name("other"));
    fs::create_dir(beside(&other)).unwrap();
    let error = other.init(None).unwrap_err();
    assert_eq!(error.code, "data_dir_unusable");
    assert!(!error.hint.contains("move all"), "{error:?}");
    assert!(!other.is_initialised() && !other.key_file().exists());
    fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(place.author(), author);
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn other_users_can_read_nothing_of_a_directory_that_was_made() {
    let place = Place::new();
    put(&mut place.open(), "a secret");
    assert_eq!(mode(place.dir.path()), 0o700);
    for entry in fs::read_dir(place.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    assert_eq!(mode(&place.dir.opens_file().unwrap()), 0o600);
}

#[test]
fn directory_that_others_could_read_is_closed_by_whoever_opens_it_to_write() {
    let place = Place::new();
    let (store, opens) = (place.dir.store_file(), place.dir.opens_file().unwrap());
    let events = place.dir.path().join("events.jsonl");
    fs::write(&events, "").unwrap();
    set_mode(place.dir.path(), 0o755);
    [&store, &opens, &events].into_iter().for_each(|path| set_mode(path, 0o644));
    // Who only reads changes nothing.
    place.dir.open_reader().unwrap();
    assert_eq!((mode(place.dir.path()), mode(&store)), (0o755, 0o644));
    drop(place.open());
    assert_eq!(mode(place.dir.path()), 0o700);
    for path in [&store, &opens, &events] {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
}

#[test]
fn directory_that_is_there_is_taken_over_only_if_nothing_of_others_is_in_it() {
    let place = TempDir::new().unwrap();
    let empty = place.path().join("empty");
    fs::create_dir(&empty).unwrap();
    set_mode(&empty, 0o755);
    DataDir::new(&empty).init(None).unwrap();
    assert_eq!(mode(&empty), 0o700);
    // Its store was lost, and its key was kept.
    fs::remove_file(empty.join("store.redb")).unwrap();
    set_mode(&empty, 0o755);
    DataDir::new(&empty).init(None).unwrap();
    assert_eq!(mode(&empty), 0o700);

    let shared = place.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("notes.txt"), "x").unwrap();
    set_mode(&shared, 0o755);
    let error = DataDir::new(&shared).init(None).unwrap_err();
    assert_eq!(error.code, "data_dir_open_to_others");
    assert_eq!((mode(&shared), fs::read_dir(&shared).unwrap().count()), (0o755, 1));
    set_mode(&shared, 0o700);
    DataDir::new(&shared).init(None).unwrap();
}
