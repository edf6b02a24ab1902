//! A small HTTP/1.1 client over a unix socket: one connection kept alive, one request at a time.
//!
//! It is small so that what is measured is the node and not the client.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::interrupt;

/// Longest wait for an answer: beyond that the node hangs, and the measurement fails.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// One connection.
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a request and reads the whole answer, which must have a 2xx status.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Vec<u8>> {
        interrupt::check()?;
        self.send(method, path, body)?;
        let (status, length) = self.head()?;
        let mut answer = vec![0; length.context("an answer without a length")?];
        self.stream.read_exact(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        ensure!((200..300).contains(&status), "{method} {path}: status {status}: {text}");
        Ok(answer)
    }

    pub(crate) fn get(&mut self, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.request("GET", path, None)?)?)
    }

    pub(crate) fn put(&mut self, lane: &str, id: &str, body: &Value) -> anyhow::Result<()> {
        let content = serde_json::json!({"kind": "file", "body": body});
        self.request("PUT", &format!("/lanes/{lane}/objects/{id}"), Some(&content))?;
        Ok(())
    }

    /// The sum of the values of one metric, 0 where there is none.
    pub(crate) fn metric(&mut self, name: &str) -> anyhow::Result<f64> {
        let text = String::from_utf8(self.request("GET", "/metrics", None)?)?;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            if !rest.starts_with([' ', '{']) {
                return None;
            }
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        });
        Ok(values.sum())
    }

    /// Follows the changes of a lane from now on, and gives the id of each to `seen` until that
    /// returns false.
    pub(crate) fn follow(
        mut self,
        lane: &str,
        following: impl FnOnce(),
        mut seen: impl FnMut(&str) -> bool,
    ) -> anyhow::Result<()> {
        self.send("GET", &format!("/changes?lane={lane}"), None)?;
        let (status, _) = self.head()?;
        ensure!(status == 200, "following changes: status {status}");
        let mut following = Some(following);
        let mut line = String::new();
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line)? > 0, "the stream of changes ended");
            // Chunk sizes stand on lines of their own: the server sends each event as one chunk.
            if line.starts_with(": following")
                && let Some(following) = following.take()
            {
                following();
            }
            let Some(data) = line.strip_prefix("data: ") else { continue };
            let change: Value = serde_json::from_str(data)?;
            let id = change["id"].as_str();
            let id =
                id.or_else(|| change["object"]["id"].as_str()).context("a change without id")?;
            if !seen(id) {
                return Ok(());
            }
        }
    }

    fn send(&mut self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<()> {
        let body = body.map(Value::to_string);
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        if let Some(body) = &body {
            let length = body.len();
            request += &format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
        }
        request += "\r\n";
        request += body.as_deref().unwrap_or_default();
        Ok(self.stream.get_mut().write_all(request.as_bytes())?)
    }

    /// The status, and the length where it is said.
    fn head(&mut self) -> anyhow::Result<(u16, Option<usize>)> {
        let mut status = None;
        let mut length = None;
        let mut line = String::new();
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                bail!("the node closed the connection");
            }
            let text = line.trim_end();
            let Some(known) = status else {
                status = Some(text.split(' ').nth(1).context("no status")?.parse()?);
                continue;
            };
            if text.is_empty() {
                return Ok((known, length));
            }
            if let Some((name, value)) = text.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse()?);
            }
        }
    }
}
