//! The queue of frames that wait to be written to one connection: bounded, and it says when full.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{FRAME_BYTES_MAX, SEND_QUEUE_BYTES_MAX, SEND_QUEUE_FRAMES_MAX, SendError};

/// Frames on their way to one connection's writer.
#[derive(Debug)]
pub(super) struct SendQueue {
    state: Mutex<State>,
    /// Wakes the writer.
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// A frame was refused, so the sender waits to be told.
    refused: bool,
    /// No frame is taken any more; those held are still written.
    closed: bool,
}

/// What the writer is to do next.
#[derive(Debug)]
pub(super) struct Batch {
    /// Frames to be written, in order.
    pub(super) frames: Vec<Bytes>,
    /// Nothing waits behind them, so flush.
    pub(super) last: bool,
    /// The sender was refused before and may try again.
    pub(super) writable: bool,
}

impl SendQueue {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), filled: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a frame, or hands it back.
    pub(super) fn push(&self, frame: Bytes) -> Result<(), SendError> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(SendError::TooLarge { bytes: frame.len() });
        }
        let mut state = self.state();
        if state.closed {
            return Err(SendError::Gone);
        }
        let full = state.bytes + frame.len() > SEND_QUEUE_BYTES_MAX
            || state.frames.len() >= SEND_QUEUE_FRAMES_MAX;
        if full && !state.frames.is_empty() {
            state.refused = true;
            return Err(SendError::Full(frame));
        }
        state.bytes += frame.len();
        state.frames.push_back(frame);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Takes no more frames; the writer ends when it has written those that are held.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.filled.notify_one();
    }

    /// Whether it takes no more frames.
    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// The next frames, about `bytes_max` of them, or `None` once closed and empty.
    pub(super) async fn pop(&self, bytes_max: usize) -> Option<Batch> {
        loop {
            {
                let mut state = self.state();
                if !state.frames.is_empty() {
                    return Some(state.take(bytes_max));
                }
                if state.closed {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }
}

impl State {
    fn take(&mut self, bytes_max: usize) -> Batch {
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while bytes < bytes_max
            && let Some(frame) = self.frames.pop_front()
        {
            bytes += frame.len();
            frames.push(frame);
        }
        self.bytes -= bytes;
        let relieved = self.bytes <= SEND_QUEUE_BYTES_MAX / 2
            && self.frames.len() <= SEND_QUEUE_FRAMES_MAX / 2;
        let writable = relieved && std::mem::take(&mut self.refused);
        Batch { frames, last: self.frames.is_empty(), writable }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_hands_the_frame_back_and_tells_once_when_half_is_gone() {
        let queue = SendQueue::new();
        let frame = Bytes::from(vec![7; 64 * 1024]);
        let mut taken = 0;
        let refused = loop {
            match queue.push(frame.clone()) {
                Ok(()) => taken += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, SendError::Full(back) if back == frame));
        assert_eq!(taken, SEND_QUEUE_BYTES_MAX / frame.len());
        let mut told = Vec::new();
        while taken > 0 {
            let batch = queue.pop(64 * 1024).await.unwrap();
            taken -= batch.frames.len();
            if batch.writable {
                told.push(queue.bytes());
            }
            assert_eq!(batch.last, taken == 0);
        }
        assert_eq!(told, [SEND_QUEUE_BYTES_MAX / 2]);
    }

    #[tokio::test]
    async fn frames_without_bytes_are_bounded_too() {
        let queue = SendQueue::new();
        for _ in 0..SEND_QUEUE_FRAMES_MAX {
            queue.push(Bytes::new()).unwrap();
        }
        assert!(matches!(queue.push(Bytes::new()), Err(SendError::Full(_))));
    }

    #[tokio::test]
    async fn a_closed_queue_still_gives_what_it_held() {
        let queue = SendQueue::new();
        queue.push(Bytes::from_static(b"last words")).unwrap();
        queue.close();
        assert!(matches!(queue.push(Bytes::new()), Err(SendError::Gone)));
        assert_eq!(queue.pop(1).await.unwrap().frames, [Bytes::from_static(b"last words")]);
        assert!(queue.pop(1).await.is_none());
    }

    #[test]
    fn an_oversized_frame_is_refused_by_name() {
        let queue = SendQueue::new();
        let error = queue.push(Bytes::from(vec![0; FRAME_BYTES_MAX + 1])).unwrap_err();
        assert!(matches!(error, SendError::TooLarge { bytes } if bytes == FRAME_BYTES_MAX + 1));
    }
}
