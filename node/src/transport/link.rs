//! One connection's stream, read and written by two tasks so that neither waits for the other.
//!
//! Writing everything before reading anything stalls both ends once their windows are full; with
//! both halves pumped at once it cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use libp2p::swarm::{ConnectionId, Stream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::events::EventSender;
use super::queue::SendQueue;
use super::{
    ACCEPT_TIMEOUT, ConnId, Connected, DisconnectReason, Event, FRAME_BYTES_MAX, GRACE,
    UNACCEPTED_BYTES_MAX, WRITE_TIMEOUT,
};

/// Bytes of a frame's length prefix.
const PREFIX_BYTES: usize = 4;

/// How much is read at once, and how much of small frames is put into one write: the size of a Noise
/// record, beyond which neither transport gains.
const CHUNK_BYTES: usize = 64 * 1024;

/// A payload from this size on is written from where it lies instead of being copied into a chunk.
const DIRECT_BYTES_MIN: usize = 32 * 1024;

/// How long the true cause of a broken stream is waited for: the stream only knows that it broke.
const CAUSE_TIMEOUT: Duration = Duration::from_millis(300);

/// How long frames that came in before the connection broke are still handed up.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// How a link is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Write what is queued, say that we end, wait until the peer has read it all.
    Gracefully(DisconnectReason),
    /// Drop everything.
    Now(DisconnectReason),
    /// The connection is gone already: hand up what came in before.
    Lost(DisconnectReason),
}

/// What the outside holds of a running link.
#[derive(Debug)]
pub(super) struct LinkShared {
    pub(super) connection: ConnectionId,
    pub(super) queue: SendQueue,
    pub(super) accepted: watch::Sender<bool>,
    pub(super) stop: watch::Sender<Option<Stop>>,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
}

impl LinkShared {
    pub(super) fn new(connection: ConnectionId) -> Self {
        Self {
            connection,
            queue: SendQueue::new(),
            accepted: watch::Sender::new(false),
            stop: watch::Sender::new(None),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }

    /// Orders the end. The first order stands, save that a graceful end may be cut short.
    pub(super) fn stop(&self, order: Stop) {
        self.stop.send_if_modified(|standing| {
            let takes = match standing {
                None => true,
                Some(Stop::Gracefully(_)) => !matches!(order, Stop::Gracefully(_)),
                Some(Stop::Lost(_)) => matches!(order, Stop::Now(_)),
                Some(Stop::Now(_)) => false,
            };
            if takes {
                *standing = Some(match (standing.take(), order) {
                    // The reason that was given first is the true one.
                    (Some(Stop::Gracefully(first)), Stop::Now(_) | Stop::Lost(_)) => {
                        Stop::Now(first)
                    }
                    (_, order) => order,
                });
            }
            takes
        });
    }
}

/// A link that is about to run.
pub(super) struct Link {
    pub(super) connected: Connected,
    pub(super) stream: Stream,
    pub(super) shared: Arc<LinkShared>,
    pub(super) events: EventSender,
    /// Resolves when the link that this one replaces has reported its end.
    pub(super) predecessor: Option<oneshot::Receiver<()>>,
    /// Tells the driver that the link has ended.
    pub(super) ended: mpsc::UnboundedSender<ConnectionId>,
}

impl Link {
    /// Hands up `Connected`, the frames, and `Disconnected`, in this order, and ends.
    ///
    /// `done` is dropped when all is reported, which a successor waits for.
    pub(super) async fn run(self, done: oneshot::Sender<()>) {
        let Self { connected, stream, shared, events, predecessor, ended } = self;
        if let Some(predecessor) = predecessor {
            // An error says that the predecessor is gone, which is what was waited for.
            let _ = predecessor.await;
        }
        let (conn, device) = (connected.conn, connected.device);
        if events.send(Event::Connected(connected)).await {
            let reason = pump(conn, stream, &shared, &events).await;
            shared.queue.close();
            events.send(Event::Disconnected { conn, device, reason }).await;
        }
        drop(done);
        // The driver is gone only at the very end, when nothing is to be told.
        let _ = ended.send(shared.connection);
    }
}

async fn pump(
    conn: ConnId,
    stream: Stream,
    shared: &Arc<LinkShared>,
    events: &EventSender,
) -> DisconnectReason {
    let (read, write) = stream.split();
    let mut reader = Reader::new(read);
    let mut stop = shared.stop.subscribe();
    let mut writer =
        AbortOnDrop(tokio::spawn(write_frames(conn, write, shared.clone(), events.clone())));

    let reason = {
        // Never dropped and begun again: half a frame may have been read.
        let mut reading = std::pin::pin!(read_frames(conn, &mut reader, shared, events));
        let order = tokio::select! {
            biased;
            order = ordered(&mut stop) => order,
            reason = &mut reading => return with_cause(reason, &mut stop).await,
            written = &mut writer.0 => match flatten(written) {
                // The queue was closed and written out, which only a stop order does.
                Ok(_) => ordered(&mut stop).await,
                Err(reason @ DisconnectReason::WriteTimeout) => return reason,
                Err(reason) => Stop::Lost(with_cause(reason, &mut stop).await),
            },
        };
        match order {
            Stop::Now(reason) => return reason,
            Stop::Lost(reason) => {
                return match timeout(DRAIN_TIMEOUT, reading).await {
                    Ok(DisconnectReason::PeerClosed) => DisconnectReason::PeerClosed,
                    _ => reason,
                };
            }
            Stop::Gracefully(reason) => reason,
        }
    };
    shared.queue.close();
    let say_goodbye = async {
        if !writer.0.is_finished() {
            // Whatever becomes of the last frames, this is the end.
            let _ = (&mut writer.0).await;
        }
        reader.discard_to_end().await;
    };
    tokio::select! {
        _ = timeout(GRACE, say_goodbye) => {}
        () = cut_short(&mut stop) => {}
    }
    reason
}

/// Aborts the writer when the link's future is dropped, so that no task outlives its link.
struct AbortOnDrop(tokio::task::JoinHandle<Result<WriteHalf<Stream>, DisconnectReason>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn flatten<T>(
    joined: Result<Result<T, DisconnectReason>, tokio::task::JoinError>,
) -> Result<T, DisconnectReason> {
    joined.unwrap_or_else(|error| Err(DisconnectReason::Network(error.to_string())))
}

async fn ordered(stop: &mut watch::Receiver<Option<Stop>>) -> Stop {
    match stop.wait_for(Option::is_some).await {
        Ok(order) => order.clone().unwrap_or(Stop::Now(DisconnectReason::Shutdown)),
        Err(_) => Stop::Now(DisconnectReason::Shutdown),
    }
}

/// Waits until a graceful end is to become a sudden one.
async fn cut_short(stop: &mut watch::Receiver<Option<Stop>>) {
    // An error says that all is gone, which cuts short as well.
    let _ = stop.wait_for(|order| matches!(order, Some(Stop::Now(_)))).await;
}

/// A broken stream does not know why it broke; the connection's end, told by the driver, does.
async fn with_cause(
    reason: DisconnectReason,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> DisconnectReason {
    if !matches!(reason, DisconnectReason::Network(_)) {
        return reason;
    }
    match timeout(CAUSE_TIMEOUT, ordered(stop)).await {
        Ok(Stop::Gracefully(cause) | Stop::Now(cause) | Stop::Lost(cause)) => cause,
        Err(_) => reason,
    }
}

/// Reads frames and hands them up until there is a reason not to.
async fn read_frames(
    conn: ConnId,
    reader: &mut Reader,
    shared: &LinkShared,
    events: &EventSender,
) -> DisconnectReason {
    let mut accepted = shared.accepted.subscribe();
    let deadline = Instant::now() + ACCEPT_TIMEOUT;
    let reading = async {
        loop {
            match reader.next(shared, &mut accepted).await {
                Ok(bytes) => {
                    if !events.send_frame(conn, bytes).await {
                        return DisconnectReason::Shutdown;
                    }
                }
                Err(reason) => return reason,
            }
        }
    };
    let refused = async {
        let mut accepted = shared.accepted.subscribe();
        // The sender lives in `shared`, so an error cannot be.
        let in_time = timeout_at(deadline, accepted.wait_for(|accepted| *accepted)).await.is_ok();
        if in_time { std::future::pending().await } else { DisconnectReason::NotAccepted }
    };
    tokio::select! {
        reason = reading => reason,
        reason = refused => reason,
    }
}

/// Cuts a byte stream into frames.
struct Reader {
    stream: ReadHalf<Stream>,
    chunk: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes read since the start, counted against the allowance of a stranger.
    total: usize,
}

impl Reader {
    fn new(stream: ReadHalf<Stream>) -> Self {
        let chunk = vec![0; CHUNK_BYTES].into_boxed_slice();
        Self { stream, chunk, start: 0, end: 0, total: 0 }
    }

    /// The next frame.
    async fn next(
        &mut self,
        shared: &LinkShared,
        accepted: &mut watch::Receiver<bool>,
    ) -> Result<Bytes, DisconnectReason> {
        while self.end - self.start < PREFIX_BYTES {
            self.fill(shared, accepted).await?;
        }
        let mut prefix = [0; PREFIX_BYTES];
        prefix.copy_from_slice(&self.chunk[self.start..self.start + PREFIX_BYTES]);
        let len = u32::from_be_bytes(prefix) as usize;
        // Checked before anything is set aside for it.
        if len > FRAME_BYTES_MAX {
            return Err(DisconnectReason::FrameTooLarge { bytes: len as u64 });
        }
        self.start += PREFIX_BYTES;
        if PREFIX_BYTES + len > CHUNK_BYTES {
            return self.large(len, shared, accepted).await;
        }
        while self.end - self.start < len {
            self.fill(shared, accepted).await?;
        }
        // Copied, so that a frame that is kept does not keep a whole chunk.
        let frame = Bytes::copy_from_slice(&self.chunk[self.start..self.start + len]);
        self.start += len;
        Ok(frame)
    }

    /// A frame that does not fit into a chunk is read where it will stay.
    async fn large(
        &mut self,
        len: usize,
        shared: &LinkShared,
        accepted: &mut watch::Receiver<bool>,
    ) -> Result<Bytes, DisconnectReason> {
        if self.total + len > UNACCEPTED_BYTES_MAX {
            wait_for_acceptance(accepted).await?;
        }
        let mut frame = BytesMut::zeroed(len);
        let held = (self.end - self.start).min(len);
        frame[..held].copy_from_slice(&self.chunk[self.start..self.start + held]);
        self.start += held;
        let mut at = held;
        while at < len {
            let n = self.stream.read(&mut frame[at..]).await.map_err(network)?;
            if n == 0 {
                return Err(DisconnectReason::Network(CUT_SHORT.to_owned()));
            }
            self.count(n, shared);
            at += n;
        }
        Ok(frame.freeze())
    }

    /// Reads more into the chunk, which has room because no frame in it is whole.
    async fn fill(
        &mut self,
        shared: &LinkShared,
        accepted: &mut watch::Receiver<bool>,
    ) -> Result<(), DisconnectReason> {
        if self.start > 0 {
            self.chunk.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let mut room = CHUNK_BYTES;
        if !*accepted.borrow() {
            if self.total >= UNACCEPTED_BYTES_MAX {
                wait_for_acceptance(accepted).await?;
            } else {
                room = room.min(self.end + UNACCEPTED_BYTES_MAX - self.total);
            }
        }
        let n = self.stream.read(&mut self.chunk[self.end..room]).await.map_err(network)?;
        if n == 0 {
            return Err(if self.end == 0 {
                DisconnectReason::PeerClosed
            } else {
                DisconnectReason::Network(CUT_SHORT.to_owned())
            });
        }
        self.end += n;
        self.count(n, shared);
        Ok(())
    }

    fn count(&mut self, n: usize, shared: &LinkShared) {
        self.total = self.total.saturating_add(n);
        shared.bytes_in.fetch_add(n as u64, Ordering::Relaxed);
    }

    /// Reads and forgets until the peer has nothing more to say.
    async fn discard_to_end(&mut self) {
        while let Ok(n) = self.stream.read(&mut self.chunk).await
            && n > 0
        {}
    }
}

const CUT_SHORT: &str = "the stream ended inside a frame";

async fn wait_for_acceptance(accepted: &mut watch::Receiver<bool>) -> Result<(), DisconnectReason> {
    match accepted.wait_for(|accepted| *accepted).await {
        Ok(_) => Ok(()),
        Err(_) => Err(DisconnectReason::Shutdown),
    }
}

fn network(error: std::io::Error) -> DisconnectReason {
    DisconnectReason::Network(error.to_string())
}

/// Writes frames until the queue is closed and empty; then ends our half of the stream.
async fn write_frames(
    conn: ConnId,
    mut stream: WriteHalf<Stream>,
    shared: Arc<LinkShared>,
    events: EventSender,
) -> Result<WriteHalf<Stream>, DisconnectReason> {
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES + DIRECT_BYTES_MIN);
    let mut owes_writable = false;
    loop {
        let batch = if owes_writable {
            tokio::select! {
                sent = events.send(Event::Writable { conn }) => {
                    owes_writable = false;
                    if !sent {
                        return Err(DisconnectReason::Shutdown);
                    }
                    continue;
                }
                batch = shared.queue.pop(CHUNK_BYTES) => batch,
            }
        } else {
            shared.queue.pop(CHUNK_BYTES).await
        };
        let Some(batch) = batch else { break };
        owes_writable |= batch.writable;
        for frame in &batch.frames {
            // `push` refuses frames that a u32 cannot measure.
            chunk.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            if frame.len() < DIRECT_BYTES_MIN {
                chunk.extend_from_slice(frame);
            } else {
                write_all(&mut stream, &chunk, &shared).await?;
                chunk.clear();
                write_all(&mut stream, frame, &shared).await?;
            }
            if chunk.len() >= CHUNK_BYTES {
                write_all(&mut stream, &chunk, &shared).await?;
                chunk.clear();
            }
        }
        write_all(&mut stream, &chunk, &shared).await?;
        chunk.clear();
        if batch.last {
            progress(stream.flush()).await?;
        }
    }
    progress(stream.close()).await?;
    Ok(stream)
}

async fn write_all(
    stream: &mut WriteHalf<Stream>,
    mut bytes: &[u8],
    shared: &LinkShared,
) -> Result<(), DisconnectReason> {
    while !bytes.is_empty() {
        let n = progress(stream.write(bytes)).await?;
        if n == 0 {
            return Err(DisconnectReason::Network("the stream takes no more".to_owned()));
        }
        shared.bytes_out.fetch_add(n as u64, Ordering::Relaxed);
        bytes = &bytes[n..];
    }
    Ok(())
}

/// One step of writing, which must not take longer than [`WRITE_TIMEOUT`].
async fn progress<T>(
    step: impl Future<Output = std::io::Result<T>>,
) -> Result<T, DisconnectReason> {
    match timeout(WRITE_TIMEOUT, step).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(network(error)),
        Err(_) => Err(DisconnectReason::WriteTimeout),
    }
}
