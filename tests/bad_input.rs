//! Input that is wrong.
