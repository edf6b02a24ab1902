//! The way up: events and frames, bounded in number and in bytes.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{ConnId, EVENTS_BYTES_MAX, EVENTS_MAX, Event};

struct Item {
    event: Event,
    /// The frame's part of the budget, given back when the frame is taken.
    _budget: Option<OwnedSemaphorePermit>,
}

/// Events for the runtime, in order for each connection. Take them, or the network waits.
pub struct Events(mpsc::Receiver<Item>);

#[derive(Clone)]
pub(super) struct EventSender {
    items: mpsc::Sender<Item>,
    budget: Arc<Semaphore>,
}

pub(super) fn channel() -> (EventSender, Events) {
    let (items, receiver) = mpsc::channel(EVENTS_MAX);
    let budget = Arc::new(Semaphore::new(EVENTS_BYTES_MAX));
    (EventSender { items, budget }, Events(receiver))
}

impl EventSender {
    /// Hands an event up, waiting for room; false when nobody listens any more.
    pub(super) async fn send(&self, event: Event) -> bool {
        self.items.send(Item { event, _budget: None }).await.is_ok()
    }

    /// Hands a frame up, waiting for room in the budget of bytes.
    pub(super) async fn send_frame(&self, conn: ConnId, bytes: Bytes) -> bool {
        // A frame is smaller than the whole budget, and the semaphore is never closed.
        let budget = self.budget.clone().acquire_many_owned(bytes.len() as u32).await.ok();
        let event = Event::Frame { conn, bytes };
        self.items.send(Item { event, _budget: budget }).await.is_ok()
    }

    /// Room for one event, held for the caller; `None` when nobody listens any more.
    pub(super) async fn reserve(&self) -> Option<Room<'_>> {
        self.items.reserve().await.ok().map(Room)
    }
}

/// Room for one event.
pub(super) struct Room<'a>(mpsc::Permit<'a, Item>);

impl Room<'_> {
    pub(super) fn fill(self, event: Event) {
        self.0.send(Item { event, _budget: None });
    }
}

impl Events {
    /// The next event, or `None` when the transport has ended.
    pub async fn recv(&mut self) -> Option<Event> {
        self.0.recv().await.map(|item| item.event)
    }

    /// The next event, if there is one already.
    pub fn try_recv(&mut self) -> Option<Event> {
        self.0.try_recv().ok().map(|item| item.event)
    }

    /// As [`Events::recv`], for a thread outside the async runtime.
    ///
    /// # Panics
    /// If called from within an async task.
    pub fn blocking_recv(&mut self) -> Option<Event> {
        self.0.blocking_recv().map(|item| item.event)
    }
}
