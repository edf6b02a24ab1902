//! The stream on which a device that is not yet a member talks its way in.

use std::sync::Arc;

use bytes::Bytes;
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use libp2p::Multiaddr;
use libp2p::swarm::{ConnectionId, Stream};
use srcos_lanes::ids::DeviceId;
use tokio::time::timeout;

use super::WRITE_TIMEOUT;
use super::behaviour::Gate;

/// The largest pairing frame: a roster of thousands of devices fits, and a stranger gets no more.
pub const PAIRING_FRAME_BYTES_MAX: usize = 64 * 1024;

/// Why a pairing stream failed.
#[derive(Debug, thiserror::Error)]
pub enum PairingError {
    /// A frame is over the limit.
    #[error("a pairing frame of {bytes} bytes is over the limit of {PAIRING_FRAME_BYTES_MAX}")]
    TooLarge {
        /// Its length, or what its header says.
        bytes: usize,
    },
    /// The peer took nothing for too long.
    #[error("the peer took nothing for {} s", WRITE_TIMEOUT.as_secs())]
    Timeout,
    /// The stream broke.
    #[error("the pairing stream broke: {0}")]
    Io(#[from] std::io::Error),
}

/// A pairing stream. Dropping both halves closes its connection soon after.
#[derive(Debug)]
pub struct Pairing {
    /// The device at the other end; the connection has proven that it holds this key.
    pub device: DeviceId,
    /// Where it is.
    pub addr: Multiaddr,
    /// The number under which we asked for the stream; `None` when the other device opened it.
    pub attempt: Option<u64>,
    /// What the peer sends.
    pub reader: PairingReader,
    /// What we send.
    pub writer: PairingWriter,
    /// The place of its connection among those of strangers.
    pub hold: Hold,
}

impl Pairing {
    pub(super) fn new(
        device: DeviceId,
        addr: Multiaddr,
        attempt: Option<u64>,
        stream: Stream,
        hold: Hold,
    ) -> Self {
        let (reader, writer) = stream.split();
        let (reader, writer) = (PairingReader(reader), PairingWriter(writer));
        Self { device, addr, attempt, reader, writer, hold }
    }
}

/// The place that a stranger's connection has while it pairs. Given up when it is dropped.
#[derive(Debug)]
pub struct Hold {
    gate: Arc<Gate>,
    connection: ConnectionId,
}

impl Hold {
    pub(super) fn new(gate: Arc<Gate>, connection: ConnectionId) -> Self {
        Self { gate, connection }
    }

    /// From now on the connection makes room for no other stranger's.
    pub fn keep(&self) {
        self.gate.strangers().set_pairs(self.connection, true);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.gate.strangers().set_pairs(self.connection, false);
    }
}

/// The half that receives.
#[derive(Debug)]
pub struct PairingReader(ReadHalf<Stream>);

impl PairingReader {
    /// The next frame, or `None` when the peer has ended its half.
    ///
    /// Not safe to cancel: a frame that was half read when the future is dropped is lost.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, PairingError> {
        let mut prefix = [0; 4];
        if self.0.read(&mut prefix[..1]).await? == 0 {
            return Ok(None);
        }
        self.0.read_exact(&mut prefix[1..]).await?;
        let bytes = u32::from_be_bytes(prefix) as usize;
        if bytes > PAIRING_FRAME_BYTES_MAX {
            return Err(PairingError::TooLarge { bytes });
        }
        let mut frame = vec![0; bytes];
        self.0.read_exact(&mut frame).await?;
        Ok(Some(frame.into()))
    }
}

/// The half that sends.
#[derive(Debug)]
pub struct PairingWriter(WriteHalf<Stream>);

impl PairingWriter {
    /// Sends a frame at once.
    pub async fn send(&mut self, frame: &[u8]) -> Result<(), PairingError> {
        if frame.len() > PAIRING_FRAME_BYTES_MAX {
            return Err(PairingError::TooLarge { bytes: frame.len() });
        }
        let mut bytes = Vec::with_capacity(4 + frame.len());
        bytes.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        bytes.extend_from_slice(frame);
        let send = async {
            self.0.write_all(&bytes).await?;
            self.0.flush().await
        };
        timeout(WRITE_TIMEOUT, send).await.map_err(|_| PairingError::Timeout)??;
        Ok(())
    }

    /// Ends our half; the peer reads `None` after the last frame.
    pub async fn finish(&mut self) -> Result<(), PairingError> {
        timeout(WRITE_TIMEOUT, self.0.close()).await.map_err(|_| PairingError::Timeout)??;
        Ok(())
    }
}
