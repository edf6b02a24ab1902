//! Objects to measure with: file records of about 150 bytes, the same in every run.

use std::io::{BufWriter, Write as _};
use std::path::Path;

use serde_json::{Value, json};

/// The id of the object with this number.
pub(crate) fn id(prefix: &str, number: u64) -> String {
    format!("{prefix}/{number:08}")
}

/// The body of the object with this number: five fields, about 150 bytes of JSON.
pub(crate) fn body(number: u64) -> Value {
    // Spreads the numbers over the words, so that bodies do not compress into nothing.
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    json!({
        "path": format!("projects/{:02}/src/module_{number:08}.rs", mixed % 97),
        "size": mixed % 1_000_000,
        "mtime": format!("2026-03-{:02}T{:02}:{:02}:00Z", 1 + mixed % 28, mixed % 24, mixed % 60),
        "hash": format!("{mixed:016x}{:016x}", mixed.rotate_left(29)),
        "media": "text/x-rust",
    })
}

/// Writes the objects as JSON lines, as `import` takes them.
pub(crate) fn write_lines(path: &Path, prefix: &str, objects: u64) -> anyhow::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    for number in 0..objects {
        let line = json!({"id": id(prefix, number), "kind": "file", "body": body(number)});
        serde_json::to_writer(&mut file, &line)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_about_150_bytes() {
        for number in [0, 77, 99_999, 999_999] {
            let bytes = body(number).to_string().len();
            assert!((140..=175).contains(&bytes), "{bytes} bytes");
        }
    }
}
