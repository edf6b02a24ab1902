//! Which paths of a folder were touched, gathered until they come to rest.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::walk::Scope;
use crate::error::NodeError;

/// Quiet time after which a burst of changes counts as over, in milliseconds.
const REST_MS: u64 = 300;

/// Longest time for which a burst is gathered, in milliseconds: a folder that never rests is
/// still followed.
const GATHER_MS_MAX: u64 = 3_000;

/// Time after which the whole folder is looked at whatever was heard, in milliseconds: systems
/// drop events under load, not always saying so.
const LOOK_AT_ALL_MS: u64 = 10 * 60 * 1000;

/// Wait before looking again at what could not be written, in milliseconds.
const LOOK_AGAIN_MS: u64 = 5_000;

/// Most touched paths that are looked at one by one; beyond, the whole folder is.
const TOUCHED_MAX: usize = 1_000;

/// Events heard and not yet looked at. When full, the folder is looked at as a whole.
const EVENTS_MAX: usize = 4_096;

/// Hears what changes in a folder.
pub(super) struct Watcher {
    root: PathBuf,
    heard: mpsc::Receiver<notify::Result<Event>>,
    overheard: std::sync::Arc<std::sync::atomic::AtomicBool>,
    faults: Vec<String>,
    again: bool,
    _watcher: RecommendedWatcher,
}

impl Watcher {
    pub(super) fn new(root: &Path) -> Result<Self, NodeError> {
        use std::sync::atomic::{AtomicBool, Ordering};
        let (sender, heard) = mpsc::channel(EVENTS_MAX);
        let overheard = std::sync::Arc::new(AtomicBool::new(false));
        let missed = std::sync::Arc::clone(&overheard);
        let tell = move |event| {
            if sender.try_send(event).is_err() {
                missed.store(true, Ordering::Release);
            }
        };
        let watcher = notify::recommended_watcher(tell).and_then(|mut watcher| {
            watcher.watch(root, RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        let watcher = watcher.map_err(|error| {
            let message = format!("{} cannot be watched: {error}", root.display());
            let hint = "where the limit of watches is reached, raise \
                        fs.inotify.max_user_watches, or run index from time to time instead";
            NodeError::usage("watch_failed", message, hint)
        })?;
        let root = root.to_owned();
        Ok(Self { root, heard, overheard, faults: Vec::new(), again: false, _watcher: watcher })
    }

    /// What the system said went wrong since this was last asked.
    pub(super) fn take_faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.faults)
    }

    /// Makes the next pass look at the whole folder, soon.
    pub(super) fn look_again(&mut self) {
        self.again = true;
    }

    /// Waits for changes and returns where they are.
    pub(super) async fn next(&mut self) -> Scope {
        loop {
            let scope = self.gather().await;
            // What was heard may be nothing that matters, such as a file being read.
            if !matches!(&scope, Scope::Touched(paths) if paths.is_empty()) {
                return scope;
            }
        }
    }

    async fn gather(&mut self) -> Scope {
        use std::sync::atomic::Ordering;
        let mut touched = Touched::default();
        let wait_ms = if self.again { LOOK_AGAIN_MS } else { LOOK_AT_ALL_MS };
        match timeout(Duration::from_millis(wait_ms), self.heard.recv()).await {
            Ok(Some(event)) => self.hear(event, &mut touched),
            // Nothing was heard for long, or the system has stopped telling.
            Ok(None) | Err(_) => touched.all = true,
        }
        let latest = Instant::now() + Duration::from_millis(GATHER_MS_MAX);
        loop {
            let rest = (Instant::now() + Duration::from_millis(REST_MS)).min(latest);
            match timeout_at(rest, self.heard.recv()).await {
                Ok(Some(event)) => self.hear(event, &mut touched),
                Ok(None) | Err(_) => break,
            }
        }
        let missed = self.overheard.swap(false, Ordering::AcqRel);
        if missed || std::mem::take(&mut self.again) {
            touched.all = true;
        }
        touched.into_scope()
    }

    fn hear(&mut self, event: notify::Result<Event>, touched: &mut Touched) {
        match event {
            Ok(event) => touched.add(&self.root, &event),
            Err(error) => {
                self.faults.push(format!("watching: {error}"));
                touched.all = true;
            }
        }
    }
}

#[derive(Debug, Default)]
struct Touched {
    all: bool,
    paths: BTreeSet<PathBuf>,
}

impl Touched {
    fn add(&mut self, root: &Path, event: &Event) {
        if matches!(event.kind, EventKind::Access(_)) {
            return;
        }
        self.all |= event.need_rescan();
        for path in &event.paths {
            // New rules may hide or show everything beside them.
            let rules =
                path.file_name().is_some_and(|name| name == ".gitignore" || name == ".ignore");
            let place = if rules { path.parent().unwrap_or(root) } else { path };
            if place == root {
                self.all = true;
            } else if place.starts_with(root) {
                self.paths.insert(place.to_owned());
            }
        }
        self.all |= self.paths.len() > TOUCHED_MAX;
    }

    fn into_scope(self) -> Scope {
        if self.all { Scope::All } else { Scope::Touched(self.paths) }
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{AccessKind, CreateKind};

    use super::super::walk::Rules;
    use super::*;

    fn touched(kind: EventKind, paths: &[&str]) -> Scope {
        let mut touched = Touched::default();
        let event = paths.iter().fold(Event::new(kind), |event, path| event.add_path(path.into()));
        touched.add(Path::new("/r"), &event);
        touched.into_scope()
    }

    #[test]
    fn only_changes_below_the_folder_count() {
        let create = EventKind::Create(CreateKind::File);
        let one = Scope::Touched(BTreeSet::from(["/r/a".into()]));
        assert_eq!(touched(create, &["/r/a", "/elsewhere/b"]), one);
        let none = Scope::Touched(BTreeSet::new());
        assert_eq!(touched(EventKind::Access(AccessKind::Read), &["/r/a"]), none);
    }

    #[test]
    fn new_ignore_rules_touch_all_that_they_rule() {
        let create = EventKind::Create(CreateKind::File);
        let below = Scope::Touched(BTreeSet::from(["/r/d".into()]));
        assert_eq!(touched(create, &["/r/d/.gitignore"]), below);
        assert_eq!(touched(create, &["/r/.gitignore"]), Scope::All);
    }

    #[tokio::test]
    async fn a_file_in_a_folder_that_is_new_is_heard_of() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let mut watcher = Watcher::new(&root).unwrap();
        std::fs::create_dir(root.join("new")).unwrap();
        std::fs::write(root.join("new/file"), "x").unwrap();
        let scope = watcher.next().await;
        let seen = super::super::walk::walk(&root, "", &Rules::default(), &scope);
        assert_eq!(seen.files.keys().collect::<Vec<_>>(), ["new/file"]);
        std::fs::remove_dir_all(root.join("new")).unwrap();
        let scope = watcher.next().await;
        let seen = super::super::walk::walk(&root, "", &Rules::default(), &scope);
        assert!(seen.files.is_empty() && seen.was_looked_at("new/file"));
        assert!(watcher.take_faults().is_empty());
    }
}
