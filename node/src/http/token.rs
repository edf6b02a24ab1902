//! The bearer token of a data directory.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Name of the token's file in the data directory.
pub const TOKEN_FILE: &str = "http.token";

/// The secret that a caller on a loopback port must show.
#[derive(Clone)]
pub struct Token {
    text: String,
}

/// A token could not be read or made.
#[derive(Debug, thiserror::Error)]
#[error("the token file {path} cannot be {action}: {source}")]
pub struct TokenError {
    /// The file.
    pub path: PathBuf,
    /// What was tried.
    pub action: &'static str,
    /// Why it failed.
    pub source: io::Error,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// The token of a data directory: the one in its file, or a new one where the file is absent,
    /// malformed, or could have been read by others.
    pub fn load_or_create(data_dir: &Path) -> Result<Self, TokenError> {
        let path = data_dir.join(TOKEN_FILE);
        let fault = |action| {
            let path = path.clone();
            move |source| TokenError { path, action, source }
        };
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o077 == 0 => {
                let text = fs::read_to_string(&path).map_err(fault("read"))?;
                let text = text.trim();
                if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Ok(Self { text: text.to_owned() });
                }
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fault("read")(error)),
        }
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| fault("created")(io::Error::other(error)))?;
        let text = data_encoding::HEXLOWER.encode(&bytes);
        write_private(&path, &text).map_err(fault("written"))?;
        Ok(Self { text })
    }

    /// Whether `shown` is this token; takes the same time wherever they differ.
    pub fn is(&self, shown: &str) -> bool {
        // Hashes compare in constant time, and hide the length too.
        blake3::hash(self.text.as_bytes()) == blake3::hash(shown.as_bytes())
    }

    /// The token, for whoever has read its file.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Replaces a file by one that was never readable by others.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("token.new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_kept_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let token = Token::load_or_create(dir.path()).unwrap();
        assert_eq!(token.text().len(), 64);
        let mode = fs::metadata(dir.path().join(TOKEN_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Token::load_or_create(dir.path()).unwrap();
        assert!(again.is(token.text()));
        assert!(!again.is(""));
        assert!(!again.is(&token.text()[..63]));
    }

    #[test]
    fn a_token_that_others_could_read_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let old = Token::load_or_create(dir.path()).unwrap();
        let path = dir.path().join(TOKEN_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let new = Token::load_or_create(dir.path()).unwrap();
        assert!(!new.is(old.text()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
