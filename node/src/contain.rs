//! A boundary for panics: what breaks in one request, or in the library below the store when it
//! meets damaged pages, becomes an error of that request.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::api::{ApiError, ErrorKind};

/// Whose code reads the pages of the store's file, as it stands in the path of a source file.
const STORE_SOURCE: &str = "/redb-";

thread_local! {
    /// Where the last panic of this thread was, and what it said.
    static LAST: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// Sends what panics say to the log, and remembers it for [`contained`].
pub fn install_hook() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let said = text.unwrap_or("no text").to_owned();
        tracing::error!(place, "a fault in the program: {said}");
        LAST.with_borrow_mut(|last| *last = Some((place, said)));
    }));
}

/// Does work; a panic in it becomes an error. Damage that the library below the store stumbles over
/// is damage of the store, everything else a fault of the node.
pub fn contained<T>(work: impl FnOnce() -> Result<T, ApiError>) -> Result<T, ApiError> {
    // What may be left half done is the store's turn, which dies with its transaction, and locks,
    // whose poison their users pass over.
    if let Ok(done) = catch_unwind(AssertUnwindSafe(work)) {
        return done;
    }
    let (place, said) = LAST.with_borrow_mut(Option::take).unwrap_or_default();
    if !place.contains(STORE_SOURCE) {
        return Err(ApiError::internal(format!("a fault at {place}: {said}")));
    }
    let message = format!("the store is damaged: its file does not hold together ({said})");
    let hint = "put back a backup, or make a new data directory and pair it; nothing was changed";
    Err(ApiError::new(ErrorKind::StoreDamaged, "store_damaged", message, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_becomes_an_error_and_an_answer_stays_one() {
        assert_eq!(contained(|| Ok(7)), Ok(7));
        let error = contained(|| -> Result<(), ApiError> { panic!("on purpose") }).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Internal);
    }
}
