//! Changes as server-sent events, for as long as the reader stays.
//!
//! Nothing is queued for a reader: the next page is read from the store when the one before has
//! gone out, so a slow reader costs its connection and nothing else.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use axum::http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use bytes::Bytes;
use serde::Deserialize;
use srcos_lanes::lane::LaneId;
use srcos_schemas::objects::ChangeDocument;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::Shared;
use super::reply::Reply;
use crate::api::{ApiError, Cursor, ErrorKind};
use crate::contain::contained;
use crate::documents::rows_between;

/// Time between signs of life on a quiet stream, in milliseconds: shorter than what proxies and
/// readers take for a dead connection.
pub(crate) const KEEP_ALIVE_MS: u64 = 15_000;

/// Changes read from the store at once.
const PAGE: usize = 64;

/// Changes read on the spot once a reader that has all hears of more: what was committed a moment ago
/// is in memory. One, since that thread serves others too, and an object may be large.
const FRESH: usize = 1;
/// Rows of the feed that are looked through for it, at most: not all hold something to show.
const FRESH_ROWS_MAX: u64 = 4;

/// What `/changes` is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangesQuery {
    after: Option<String>,
    lane: Option<String>,
}

struct Follower {
    shared: Shared,
    cursor: Cursor,
    lane: Option<LaneId>,
    ticks: watch::Receiver<u64>,
    ready: VecDeque<ChangeDocument>,
    /// All was read, and then something was committed.
    fresh: bool,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

/// The header in which a reader that comes back says how far it has read.
const LAST_EVENT_ID: &str = "last-event-id";

impl ChangesQuery {
    /// Where to start; now, if nothing says where. A reader that comes back by itself repeats the
    /// address that it first asked for, so of a cursor there and one in the header the later holds.
    fn start(&self, headers: &HeaderMap) -> Result<Option<Cursor>, ApiError> {
        let asked: Option<Cursor> = self.after.as_deref().map(str::parse).transpose()?;
        let mut seen = headers.get_all(LAST_EVENT_ID).iter();
        let (first, second) = (seen.next(), seen.next());
        if second.is_some() {
            let message = "the Last-Event-ID header is there more than once";
            let hint = "send it once, with the id of the last event that was read";
            return Err(ApiError::new(ErrorKind::BadInput, "cursor_malformed", message, hint));
        }
        // A header that is no text reads as a cursor that is none.
        let seen = first.map(|seen| seen.to_str().unwrap_or("?").trim().parse()).transpose()?;
        Ok(asked.max(seen))
    }
}

pub(super) async fn response(shared: Shared, query: ChangesQuery, headers: &HeaderMap) -> Reply {
    let start = query.start(headers)?;
    let place = Arc::clone(&shared.streams).try_acquire_owned().map_err(|_| {
        ApiError::new(
            ErrorKind::Busy,
            "streams_busy",
            format!("{} change streams are open already", super::STREAMS_MAX),
            "end one of them first",
        )
    })?;
    let lane = query.lane.as_deref().map(super::routes::read_lane).transpose()?;
    let ticks = shared.node.subscribe();
    let cursor = start.unwrap_or_else(|| Cursor(*ticks.borrow()));
    // Asked once before the stream starts, so that a cursor that is not known is a plain error.
    shared.ask(move |node| node.changes(cursor, 1)).await?;
    let follower = Follower {
        shared,
        cursor,
        lane,
        ticks,
        ready: VecDeque::new(),
        fresh: false,
        ended: false,
        _place: place,
    };
    // The first line tells the reader that it is connected, and where it starts.
    let first = Bytes::from(format!("retry: 1000\nid: {cursor}\n: following\n\n"));
    let first = futures::stream::iter([Ok::<_, Infallible>(first)]);
    let events = futures::stream::unfold(follower, async |mut follower| {
        let event = follower.next_event().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    let mut response = Response::new(Body::from_stream(futures::StreamExt::chain(first, events)));
    let event_stream = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(CONTENT_TYPE, event_stream);
    Ok(response)
}

impl Follower {
    /// The next event; nothing when the stream is over.
    async fn next_event(&mut self) -> Option<Bytes> {
        loop {
            if self.ended {
                return None;
            }
            if let Some(change) = self.ready.pop_front() {
                return Some(event(&change));
            }
            // Marked as seen before reading: a change that comes in between is a tick that waits.
            let last = Cursor(*self.ticks.borrow_and_update());
            let after = self.cursor;
            let near = rows_between(after, last) <= FRESH_ROWS_MAX;
            let page = if std::mem::take(&mut self.fresh) && near {
                contained(|| self.shared.node.changes(after, FRESH))
            } else {
                self.shared.ask(move |node| node.changes(after, PAGE)).await
            };
            match page {
                Ok(page) if page.is_empty() => {
                    if let Some(sign_of_life) = self.wait().await {
                        return Some(sign_of_life);
                    }
                }
                Ok(page) => {
                    if let Err(error) = self.take(page) {
                        return Some(self.end_with(&error));
                    }
                    // Millions of changes of other lanes may lie before the next: the reader hears
                    // that all is well, and where to go on should it lose the connection.
                    if self.ready.is_empty() {
                        return Some(Bytes::from(format!("id: {}\n: passed\n\n", self.cursor)));
                    }
                }
                Err(error) => return Some(self.end_with(&error)),
            }
        }
    }

    fn take(&mut self, page: Vec<ChangeDocument>) -> Result<(), ApiError> {
        if let Some(last) = page.last() {
            self.cursor = last.cursor.parse()?;
        }
        let lane = self.lane.map(LaneId::name);
        let wanted = |change: &ChangeDocument| lane.is_none_or(|lane| change.lane == lane);
        self.ready.extend(page.into_iter().filter(wanted));
        Ok(())
    }

    /// Waits for the next change; returns a sign of life when none comes for long.
    async fn wait(&mut self) -> Option<Bytes> {
        tokio::select! {
            () = self.shared.stop.cancelled() => self.ended = true,
            changed = self.ticks.changed() => {
                self.ended = changed.is_err();
                self.fresh = !self.ended;
            }
            () = tokio::time::sleep(Duration::from_millis(KEEP_ALIVE_MS)) => {
                return Some(Bytes::from_static(b": keep-alive\n\n"));
            }
        }
        None
    }

    fn end_with(&mut self, error: &ApiError) -> Bytes {
        self.ended = true;
        let document = serde_json::to_string(&error.document()).unwrap_or_default();
        Bytes::from(format!("event: error\ndata: {document}\n\n"))
    }
}

fn event(change: &ChangeDocument) -> Bytes {
    let data = serde_json::to_string(change).unwrap_or_default();
    Bytes::from(format!("id: {}\nevent: change\ndata: {data}\n\n", change.cursor))
}
