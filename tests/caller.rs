//! A small HTTP client that sends exactly what a test says, over the unix socket or TCP.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// Longest time without a byte.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

trait Wire: Read + Write + Send {}
impl Wire for UnixStream {}
impl Wire for TcpStream {}

/// A connection to a node.
pub(crate) struct Caller {
    wire: BufReader<Box<dyn Wire>>,
    headers: Vec<(String, String)>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// A header, or nothing.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// That the answer has this status.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// That it is an error document with this code.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> Self {
        let answer = self.is(status);
        let error = &answer.json()["error"];
        assert_eq!(error["code"], code, "{answer:?}");
        for field in ["message", "hint"] {
            assert!(error[field].as_str().is_some_and(|text| !text.is_empty()), "{answer:?}");
        }
        answer
    }
}

impl Caller {
    /// Through the socket of a data directory.
    pub(crate) fn unix(dir: &Path) -> std::io::Result<Self> {
        let wire = UnixStream::connect(dir.join("node.sock"))?;
        wire.set_read_timeout(Some(READ_TIMEOUT))?;
        wire.set_write_timeout(Some(READ_TIMEOUT))?;
        Ok(Self::over(Box::new(wire), vec![("host".to_owned(), "node".to_owned())]))
    }

    /// Over TCP, with the right host and nothing else.
    pub(crate) fn tcp(address: SocketAddr) -> std::io::Result<Self> {
        let wire = TcpStream::connect(address)?;
        wire.set_read_timeout(Some(READ_TIMEOUT))?;
        wire.set_write_timeout(Some(READ_TIMEOUT))?;
        Ok(Self::over(Box::new(wire), vec![("host".to_owned(), address.to_string())]))
    }

    fn over(wire: Box<dyn Wire>, headers: Vec<(String, String)>) -> Self {
        Self { wire: BufReader::new(wire), headers }
    }

    /// Sends a header with every request from now on; an empty value takes it away.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        if !value.is_empty() {
            self.headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Asks, and reads the answer whole.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Answer> {
        self.send(method, path, headers, body)?;
        let (status, headers) = self.head()?;
        let header = |name: &str| headers.iter().find(|(known, _)| known == name);
        let mut bytes = Vec::new();
        if let Some((_, length)) = header("content-length") {
            bytes.resize(length.parse().map_err(std::io::Error::other)?, 0);
            self.wire.read_exact(&mut bytes)?;
        } else {
            while let Some(chunk) = self.chunk()? {
                bytes.extend(chunk);
            }
        }
        let body = String::from_utf8(bytes).map_err(std::io::Error::other)?;
        Ok(Answer { status, headers, body })
    }

    /// Asks for a document of the node, which must be there.
    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").expect("the node answers")
    }

    /// Puts an object, with its body.
    pub(crate) fn put(&mut self, lane: &str, id: &str, body: &Value) -> std::io::Result<Answer> {
        let content = serde_json::json!({ "body": body }).to_string();
        let json = [("content-type", "application/json")];
        self.ask("PUT", &format!("/lanes/{lane}/objects/{id}"), &json, &content)
    }

    /// Follows server-sent events.
    #[track_caller]
    pub(crate) fn follow(mut self, path: &str) -> Events {
        self.send("GET", path, &[], "").expect("the node takes the request");
        let (status, headers) = self.head().expect("the node answers");
        assert_eq!(status, 200, "{headers:?}");
        Events { caller: self, text: String::new() }
    }

    fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<()> {
        let mut request = format!("{method} {path} HTTP/1.1\r\n");
        for (name, value) in &self.headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
        self.wire.get_mut().write_all(request.as_bytes())
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.wire.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn head(&mut self) -> std::io::Result<(u16, Vec<(String, String)>)> {
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or(std::io::ErrorKind::InvalidData)?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(": ") else { return Ok((status, headers)) };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }

    /// The next chunk of a chunked body; nothing at its end.
    fn chunk(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let size = self.line()?;
        let size = usize::from_str_radix(&size, 16).map_err(std::io::Error::other)?;
        let mut chunk = vec![0; size];
        self.wire.read_exact(&mut chunk)?;
        self.line()?;
        Ok((size > 0).then_some(chunk))
    }
}

/// A stream of server-sent events.
pub(crate) struct Events {
    caller: Caller,
    text: String,
}

impl Events {
    /// The next change; nothing when the stream has ended.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<Value> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                let data = data.map(|data| serde_json::from_str(data).expect("data is JSON"));
                self.text = rest.to_owned();
                if data.is_some() {
                    return data;
                }
            }
            let chunk = self.caller.chunk().expect("the stream goes on")?;
            self.text.push_str(std::str::from_utf8(&chunk).expect("events are text"));
        }
    }
}
