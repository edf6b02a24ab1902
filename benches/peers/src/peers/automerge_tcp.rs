//! Automerge's own sync protocol over a plain TCP stream, as its documentation describes it: one
//! document, a sync state for the other side that is kept between links, changes appended to a
//! file. Every append is synced to disk before a write is answered or a message is.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use automerge::sync::{Message, State, SyncDoc as _};
use automerge::{Automerge, ChangeHash};

use crate::document;
use crate::peers::wait;
use crate::side::{Side, Start};

/// Longest message taken: a first sync is one message that holds the whole document.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// The document, its file and its link.
struct Device {
    doc: Automerge,
    file: File,
    /// What the file holds.
    saved: Vec<ChangeHash>,
    /// What is known of the other side.
    peer: State,
    link: Option<Out>,
}

/// The way out of a link: the stream to cut it with, and what its writer thread is to send.
struct Out {
    stream: TcpStream,
    frames: mpsc::Sender<Vec<u8>>,
}

type Shared = Arc<(Mutex<Device>, Condvar)>;

impl Device {
    /// Appends what the file does not hold yet, durably.
    fn save(&mut self) -> anyhow::Result<()> {
        let heads = self.doc.get_heads();
        if heads != self.saved {
            self.file.write_all(&self.doc.save_after(&self.saved))?;
            self.file.sync_data()?;
            self.saved = heads;
        }
        Ok(())
    }

    /// Sends what there is to say.
    fn talk(&mut self) {
        let Some(link) = &self.link else { return };
        while let Some(message) = self.doc.generate_sync_message(&mut self.peer) {
            if link.frames.send(message.encode()).is_err() {
                return;
            }
        }
    }
}

fn lock(shared: &Shared) -> anyhow::Result<MutexGuard<'_, Device>> {
    shared.0.lock().map_err(|_| anyhow::anyhow!("a thread of this side panicked"))
}

/// Runs a link: one thread reads, one writes.
fn run(shared: &Shared, stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let (mut from, mut to) = (stream.try_clone()?, stream.try_clone()?);
    let (frames, to_send) = mpsc::channel::<Vec<u8>>();
    std::thread::spawn(move || {
        for frame in to_send {
            let length = (frame.len() as u64).to_be_bytes();
            // One write for small frames, so that each is one packet.
            if to.write_all(&[&length, frame.as_slice()].concat()).is_err() {
                return;
            }
        }
    });
    {
        let mut device = lock(shared)?;
        // Only what both had agreed on outlives a link.
        device.peer = State::decode(&device.peer.encode())?;
        device.link = Some(Out { stream, frames });
        device.talk();
    }
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        // A link that ends, however it ends, is cut; the next one starts afresh.
        let _ = listen(&shared, &mut from);
    });
    Ok(())
}

fn listen(shared: &Shared, from: &mut TcpStream) -> anyhow::Result<()> {
    loop {
        let mut length = [0; 8];
        from.read_exact(&mut length)?;
        let length = usize::try_from(u64::from_be_bytes(length))?;
        ensure!(length <= MESSAGE_BYTES_MAX, "a message of {length} bytes");
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes)?;
        let message = Message::decode(&bytes)?;
        drop(bytes);
        let mut device = lock(shared)?;
        let Device { doc, peer, .. } = &mut *device;
        doc.receive_sync_message(peer, message)?;
        device.save()?;
        device.talk();
        shared.1.notify_all();
    }
}

/// A device.
pub(crate) struct AutomergeTcp {
    shared: Shared,
    listener: Option<TcpListener>,
    address: String,
    dials: bool,
    expected: u64,
}

impl AutomergeTcp {
    pub(crate) fn start(start: &Start) -> anyhow::Result<Self> {
        let file = File::create(start.dir.join("document.automerge"))?;
        let doc = match start.invitation {
            Some(_) => Automerge::new(),
            None => document::empty()?,
        };
        let mut device = Device { doc, file, saved: Vec::new(), peer: State::new(), link: None };
        device.save()?;
        let (listener, address) = match &start.invitation {
            Some(address) => (None, address.clone()),
            None => {
                let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
                let address = listener.local_addr()?.to_string();
                (Some(listener), address)
            }
        };
        let shared = Arc::new((Mutex::new(device), Condvar::new()));
        let dials = start.invitation.is_some();
        Ok(Self { shared, listener, address, dials, expected: 0 })
    }
}

impl Side for AutomergeTcp {
    fn invitation(&mut self) -> anyhow::Result<String> {
        if let Some(listener) = self.listener.take() {
            let shared = Arc::clone(&self.shared);
            std::thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    let _ = run(&shared, stream);
                }
            });
        }
        Ok(self.address.clone())
    }

    fn write(&mut self, numbers: Range<u64>) -> anyhow::Result<()> {
        document::in_batches(numbers, |batch| {
            let mut device = lock(&self.shared)?;
            document::add(&mut device.doc, batch)?;
            device.save()?;
            device.talk();
            Ok(())
        })
    }

    fn connect(&mut self) -> anyhow::Result<()> {
        if self.dials {
            run(&self.shared, TcpStream::connect(&self.address).context("cannot connect")?)?;
        }
        Ok(())
    }

    fn disconnect(&mut self) -> anyhow::Result<()> {
        if let Some(link) = lock(&self.shared)?.link.take() {
            // It may be gone already.
            let _ = link.stream.shutdown(Shutdown::Both);
        }
        Ok(())
    }

    fn held(&mut self) -> anyhow::Result<u64> {
        Ok(document::count(&lock(&self.shared)?.doc))
    }

    fn expect(&mut self, number: u64) -> anyhow::Result<()> {
        self.expected = number;
        Ok(())
    }

    fn seen(&mut self, limit: Duration) -> anyhow::Result<bool> {
        wait(&self.shared, limit, |device| document::has(&device.doc, self.expected))
    }
}
