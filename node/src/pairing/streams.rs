//! The pairing streams that are open, each read and written on tasks of its own.
//!
//! Strangers open them, so they are few and short: a stream that takes no part in an exchange is
//! closed in time, and all but the one that has shown to know the secret make room for those that come
//! later, fairly for those that come from different places. To say nothing is no guess, and costs the
//! invite nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use srcos_lanes::ids::{MonoMillis, Now};
use srcos_replication::pairing::{Stream, Transmit, UNPROVEN_MAX};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::PairingInput;
use crate::transport::{self, Hold, Origin, PairingReader, PairingWriter, makes_room};

/// How long a pairing stream may take no part in an exchange, in milliseconds: who opens one says its
/// first word at once, and a slow link takes a second or two for it.
pub const FIRST_FRAME_MS_MAX: u64 = 10_000;
/// Pairing streams that others opened, at once: one is in use, and a few have yet to show that they
/// know the secret.
pub const STREAMS_MAX: usize = UNPROVEN_MAX;
/// Frames that wait to be written to a pairing stream: an exchange has few.
const STREAM_FRAMES_MAX: usize = 64;
/// How long the other end may take to read our last frame before its connection is closed.
const LINGER: Duration = Duration::from_secs(2);

/// The open streams, by their number.
pub(super) struct Streams {
    tokio: tokio::runtime::Handle,
    inputs: mpsc::Sender<PairingInput>,
    next: u64,
    open: BTreeMap<u64, Open>,
}

struct Open {
    stream: Stream,
    inbound: bool,
    origin: Origin,
    hold: Hold,
    /// When it is closed if it then takes no part in an exchange.
    due: MonoMillis,
    writer: mpsc::Sender<(Vec<u8>, bool)>,
    /// Dropped with the rest: then the reading ends as well.
    _reads: oneshot::Sender<()>,
}

impl Streams {
    /// None yet. Must be called inside the tokio runtime.
    pub(super) fn new(inputs: mpsc::Sender<PairingInput>) -> Self {
        let tokio = tokio::runtime::Handle::current();
        Self { tokio, inputs, next: 0, open: BTreeMap::new() }
    }

    /// Takes a stream in. When others have opened too many, one of theirs makes room, though not the
    /// `proven` one; it is returned as well.
    pub(super) fn open(
        &mut self,
        now: Now,
        pairing: transport::Pairing,
        proven: Option<Stream>,
    ) -> (Stream, Option<Stream>) {
        let stream = Stream { id: self.next, device: pairing.device };
        self.next += 1;
        let inbound = pairing.attempt.is_none();
        let origin = Origin::of(&pairing.addr);
        let mut closed = None;
        if inbound && self.open.values().filter(|open| open.inbound).count() >= STREAMS_MAX {
            let theirs = self.open.iter().filter(|(_, open)| open.inbound);
            let held = theirs.map(|(id, open)| (*id, open.origin, proven != Some(open.stream)));
            // Numbers grow, so the first is the oldest. Where none may go, the newcomer does.
            let goes = makes_room(held, origin).unwrap_or(stream.id);
            closed = Some(self.open.get(&goes).map_or(stream, |open| open.stream));
        }
        let transport::Pairing { reader, writer, hold, .. } = pairing;
        let (writer, reads) = self.pump(stream, reader, writer);
        let due = now.mono.after_ms(FIRST_FRAME_MS_MAX);
        let open = Open { stream, inbound, origin, hold, due, writer, _reads: reads };
        self.open.insert(stream.id, open);
        if let Some(closed) = closed {
            tracing::debug!(device = %closed.device, "a pairing stream makes room");
            self.close(closed);
        }
        (stream, closed)
    }

    /// A stream takes part in an exchange: its connection makes room for no other stranger's.
    pub(super) fn keep(&self, stream: Stream) {
        if let Some(open) = self.open.get(&stream.id) {
            open.hold.keep();
        }
    }

    /// Whether a stream is open, and what it brings is to be heeded.
    pub(super) fn is_open(&self, stream: Stream) -> bool {
        self.open.contains_key(&stream.id)
    }

    /// Closes a stream, once what waits has been written.
    pub(super) fn close(&mut self, stream: Stream) {
        self.open.remove(&stream.id);
    }

    /// Closes those that took no part in an exchange for too long.
    pub(super) fn close_idle(&mut self, now: Now, in_use: &[Stream]) {
        self.open.retain(|_, open| open.due > now.mono || in_use.contains(&open.stream));
    }

    /// When [`Streams::close_idle`] is due next.
    pub(super) fn poll_timeout(&self, in_use: &[Stream]) -> Option<MonoMillis> {
        let idle = self.open.values().filter(|open| !in_use.contains(&open.stream));
        idle.map(|open| open.due).min()
    }

    pub(super) fn send(&mut self, transmit: Transmit) {
        let Transmit { stream, frame, last } = transmit;
        let Some(open) = self.open.get(&stream.id) else { return };
        let full = open.writer.try_send((frame, last)).is_err();
        if last || full {
            self.close(stream);
        }
    }

    /// Reads and writes a stream on tasks of their own. Each ends when what is returned for it is
    /// dropped.
    fn pump(
        &self,
        stream: Stream,
        mut read: PairingReader,
        mut write: PairingWriter,
    ) -> (mpsc::Sender<(Vec<u8>, bool)>, oneshot::Sender<()>) {
        let (writer, mut frames) = mpsc::channel::<(Vec<u8>, bool)>(STREAM_FRAMES_MAX);
        let (reads, closed) = oneshot::channel();
        let inputs = self.inputs.clone();
        self.tokio.spawn(async move {
            let reading = async {
                loop {
                    let frame = read.recv().await.ok().flatten();
                    let ended = frame.is_none();
                    if inputs.send(PairingInput { stream, frame }).await.is_err() || ended {
                        return;
                    }
                }
            };
            tokio::select! {
                () = reading => return,
                // Nothing is ever sent: the other half was dropped.
                _ = closed => {}
            }
            // The other end closes when it has read our last frame; then nothing of it is lost.
            let drained = async { while read.recv().await.is_ok_and(|frame| frame.is_some()) {} };
            let _ = timeout(LINGER, drained).await;
        });
        self.tokio.spawn(async move {
            while let Some((frame, last)) = frames.recv().await {
                if write.send(&frame).await.is_err() || last {
                    break;
                }
            }
            // The other end sees the end of the stream, or has gone.
            let _ = write.finish().await;
        });
        (writer, reads)
    }
}
