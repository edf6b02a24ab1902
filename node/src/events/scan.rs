//! Reads a store from its beginning in blocks of whole lines, with bounded memory.

use std::fs::File;
use std::io::{self, Read};

use super::LINE_BYTES_MAX;

/// Bytes read at once: large enough that several threads have work, small against any memory.
const BLOCK_BYTES: usize = 4 << 20;

/// Most lines in one block: a file of nothing but line ends must not become a list of millions.
const BLOCK_LINES_MAX: usize = 1 << 15;

/// Some whole lines of a file.
#[derive(Debug)]
pub struct Block<'a> {
    /// Where it begins in the file.
    pub offset: u64,
    /// The number of its first line, from 1.
    pub first_line: u64,
    /// Its bytes, line ends included.
    pub bytes: &'a [u8],
    /// What sort of block it is.
    pub kind: BlockKind,
}

/// What sort of block it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// Whole lines, each with its end.
    Lines,
    /// The last line, which has no end.
    Unended,
    /// One line that is longer than [`LINE_BYTES_MAX`]; its bytes are only its beginning.
    TooLong,
}

impl Block<'_> {
    /// The lines without their ends.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let whole = self.bytes.strip_suffix(b"\n").unwrap_or(self.bytes);
        let ends = memchr::memchr_iter(b'\n', whole).chain([whole.len()]);
        ends.scan(0, |start, end| {
            let line = &whole[*start..end];
            *start = end + 1;
            Some(line)
        })
    }
}

/// Reads blocks of a file, one after the other.
#[derive(Debug)]
pub struct Blocks<R = File> {
    source: R,
    /// What was read and not given yet, from `given`.
    buffer: Vec<u8>,
    given: usize,
    offset: u64,
    next_line: u64,
    ended: bool,
}

impl<R: Read> Blocks<R> {
    /// Reads a source from a place on: its offset in the file and the number of the line there.
    pub fn new(source: R, offset: u64, first_line: u64) -> Self {
        let buffer = Vec::new();
        Self { source, buffer, given: 0, offset, next_line: first_line, ended: false }
    }

    /// The next block; nothing at the end.
    pub fn next_block(&mut self) -> io::Result<Option<Block<'_>>> {
        self.buffer.drain(..self.given);
        self.given = 0;
        if memchr::memchr(b'\n', &self.buffer).is_none() || self.buffer.len() < BLOCK_BYTES / 2 {
            self.fill(BLOCK_BYTES)?;
        }
        while !self.ended
            && self.buffer.len() <= LINE_BYTES_MAX
            && memchr::memchr(b'\n', &self.buffer).is_none()
        {
            self.fill(self.buffer.len() + BLOCK_BYTES)?;
        }
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let (length, lines, kind) = self.cut();
        let (offset, first_line) = (self.offset, self.next_line);
        self.next_line += lines;
        self.offset += length as u64;
        self.given = length;
        if kind == BlockKind::TooLong {
            self.skip_line()?;
        }
        Ok(Some(Block { offset, first_line, bytes: &self.buffer[..length], kind }))
    }

    /// How much of the buffer is the next block, and how many lines.
    fn cut(&self) -> (usize, u64, BlockKind) {
        let mut lines = 0;
        let mut end = 0;
        for at in memchr::memchr_iter(b'\n', &self.buffer) {
            if at - end > LINE_BYTES_MAX || lines == BLOCK_LINES_MAX {
                break;
            }
            lines += 1;
            end = at + 1;
        }
        match (end, self.buffer.len()) {
            (0, length) if length > LINE_BYTES_MAX => (LINE_BYTES_MAX, 1, BlockKind::TooLong),
            (0, length) => (length, 1, BlockKind::Unended),
            _ => (end, lines as u64, BlockKind::Lines),
        }
    }

    /// Reads on until the buffer has this many bytes or the source ends.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        let missing = wanted.saturating_sub(self.buffer.len()) as u64;
        if missing > 0 && !self.ended {
            let read = (&mut self.source).take(missing).read_to_end(&mut self.buffer)?;
            self.ended = (read as u64) < missing;
        }
        Ok(())
    }

    /// Passes over the rest of a line that is too long, keeping its beginning in the buffer.
    fn skip_line(&mut self) -> io::Result<()> {
        let kept = self.given;
        loop {
            if let Some(end) = self.buffer[kept..].iter().position(|byte| *byte == b'\n') {
                self.buffer.drain(kept..=kept + end);
                self.offset += end as u64 + 1;
                return Ok(());
            }
            self.offset += (self.buffer.len() - kept) as u64;
            self.buffer.truncate(kept);
            if self.ended {
                return Ok(());
            }
            self.fill(kept + BLOCK_BYTES)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Kind, offset, number and text of each line that reading gives.
    fn read(bytes: &[u8]) -> Vec<(BlockKind, u64, Vec<u8>)> {
        let mut blocks = Blocks::new(bytes, 0, 1);
        let mut read = Vec::new();
        while let Some(block) = blocks.next_block().unwrap() {
            for (index, line) in block.lines().enumerate() {
                read.push((block.kind, block.first_line + index as u64, line.to_vec()));
            }
        }
        read
    }

    #[test]
    fn a_line_that_is_too_long_is_named_and_passed_over() {
        let long = vec![b'x'; LINE_BYTES_MAX * 6];
        let bytes = [&b"a\n"[..], &long, b"\nb\n", &long].concat();
        let lines = read(&bytes);
        let seen: Vec<_> = lines.iter().map(|(kind, n, line)| (*kind, *n, line.len())).collect();
        let too_long = LINE_BYTES_MAX;
        assert_eq!(
            seen,
            [
                (BlockKind::Lines, 1, 1),
                (BlockKind::TooLong, 2, too_long),
                (BlockKind::Lines, 3, 1),
                (BlockKind::TooLong, 4, too_long),
            ]
        );
    }

    #[test]
    fn many_short_lines_come_in_many_blocks() {
        let bytes = vec![b'\n'; BLOCK_LINES_MAX * 3 + 5];
        let mut blocks = Blocks::new(&bytes[..], 0, 1);
        let mut lines = 0;
        while let Some(block) = blocks.next_block().unwrap() {
            assert!(block.lines().count() <= BLOCK_LINES_MAX);
            assert_eq!(block.offset + 1, block.first_line);
            lines += block.lines().count();
        }
        assert_eq!(lines, bytes.len());
    }

    proptest! {
        #[test]
        fn every_line_is_given_once_and_in_order(bytes in prop::collection::vec(prop::sample::select(vec![b'a', b'b', b'\n']), 0..500)) {
            let lines = read(&bytes);
            let text: Vec<u8> = lines.iter().flat_map(|(kind, _, line)| {
                let end = if *kind == BlockKind::Lines { &b"\n"[..] } else { b"" };
                [line, end].concat()
            }).collect();
            prop_assert_eq!(text, bytes);
            for (index, (_, n, _)) in lines.iter().enumerate() {
                prop_assert_eq!(*n, index as u64 + 1);
            }
        }
    }
}
