//! Syncthing: a folder with a file for each object, its own program, driven over its REST API.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::side::{Side, Start, peak_memory_bytes};
use crate::workload;

/// Longest wait for the program to answer after it was started.
const START_TIME_MAX: Duration = Duration::from_secs(30);
/// Time between two looks for a file: Syncthing has no event for it that comes sooner.
const LOOK_TIME: Duration = Duration::from_micros(500);
/// It is only reached over a socket in a directory of its own.
const KEY: &str = "peers";

/// A device.
pub(crate) struct Syncthing {
    child: Child,
    home: PathBuf,
    files: PathBuf,
    invitation: String,
    /// Whom to dial, for the side that does.
    other: Option<String>,
    expected: PathBuf,
}

impl Drop for Syncthing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a device's key; tells its id.
fn generate(home: &Path) -> anyhow::Result<String> {
    let run = |args: &[&str]| -> anyhow::Result<String> {
        let output = Command::new("syncthing").args(args).arg(home_arg(home)).output();
        let output = output.context("cannot run syncthing")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    run(&["generate", "--no-default-folder"])?;
    let told = run(&["serve", "--device-id"])?;
    // Some versions put words before it.
    Ok(told.rsplit(' ').next().unwrap_or_default().to_owned())
}

fn home_arg(home: &Path) -> String {
    format!("--home={}", home.display())
}

fn configuration(home: &Path, files: &Path, me: &str, other: &str, port: u16, to: &str) -> String {
    let mut text = String::from("<configuration version=\"35\">\n");
    let paused = to != "dynamic";
    // With a low priority it would leave its process group, which it is killed with, and it would
    // give way to what else is measured.
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "<folder id=\"objects\" path=\"{}\" type=\"sendreceive\"><filesystemType>basic\
         </filesystemType><device id=\"{me}\"/><device id=\"{other}\"/></folder>\n\
         <device id=\"{me}\" name=\"me\"><address>dynamic</address></device>\n\
         <device id=\"{other}\" name=\"other\"><address>{to}</address><paused>{paused}</paused>\
         </device>\n\
         <gui enabled=\"true\"><address>{}</address><unixSocketPermissions>0600\
         </unixSocketPermissions><apikey>{KEY}</apikey></gui>\n\
         <options><listenAddress>tcp://127.0.0.1:{port}</listenAddress>\
         <globalAnnounceEnabled>false</globalAnnounceEnabled>\
         <localAnnounceEnabled>false</localAnnounceEnabled><relaysEnabled>false</relaysEnabled>\
         <natEnabled>false</natEnabled><urAccepted>-1</urAccepted>\
         <crashReportingEnabled>false</crashReportingEnabled>\
         <autoUpgradeIntervalH>0</autoUpgradeIntervalH><startBrowser>false</startBrowser>\
         <setLowPriority>false</setLowPriority>\
         </options>\n</configuration>\n",
        files.display(),
        home.join("gui.sock").display(),
    );
    text
}

impl Syncthing {
    pub(crate) fn start(start: &Start) -> anyhow::Result<Self> {
        let (home, files) = (start.dir.join("home"), start.dir.join("files"));
        std::fs::create_dir_all(files.join("bench"))?;
        // Each has to know the other's id before it starts: who invites makes both keys.
        let guest = start.dir.join("guest");
        let (invitation, other, config) = match &start.invitation {
            None => {
                let (me, other) = (generate(&home)?, generate(&guest)?);
                // A port that is free now; if it is taken before Syncthing has it, that says so.
                let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
                let config = configuration(&home, &files, &me, &other, port, "dynamic");
                (format!("{} {me} {other} {port}", guest.display()), None, config)
            }
            Some(invitation) => {
                let words: Vec<&str> = invitation.split(' ').collect();
                let [keys, other, me, port] = words[..] else { bail!("half an invitation") };
                std::fs::rename(keys, &home)?;
                let port = port.parse::<u16>()?;
                let to = format!("tcp://127.0.0.1:{port}");
                let config = configuration(&home, &files, me, other, 0, &to);
                (String::new(), Some(other.to_owned()), config)
            }
        };
        std::fs::write(home.join("config.xml"), config)?;
        let child = Command::new("syncthing")
            .args(["serve", "--no-browser", "--no-restart", "--logflags=0"])
            .arg(home_arg(&home))
            // No second process that watches the first.
            .env("STMONITORED", "yes")
            .env("STNOUPGRADE", "1")
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(start.dir.join("syncthing.log"))?)
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start syncthing")?;
        let expected = PathBuf::new();
        let mut side = Self { child, home, files, invitation, other, expected };
        side.wait_ready(&start.dir.join("syncthing.log"))?;
        Ok(side)
    }

    fn wait_ready(&mut self, log: &Path) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.request("GET", "/rest/system/ping").is_err() {
            let ended = self.child.try_wait()?.is_some();
            if ended || began.elapsed() > START_TIME_MAX {
                let log = std::fs::read_to_string(log).unwrap_or_default();
                bail!("syncthing did not start: {}", log.lines().last().unwrap_or("no word"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // The folder's first look at itself is not what is measured.
        self.scan("")
    }

    fn request(&self, method: &str, path: &str) -> anyhow::Result<String> {
        let mut stream = UnixStream::connect(self.home.join("gui.sock"))?;
        // Version 1.0, so that the answer is in one piece and the connection ends with it.
        let head = format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\nX-API-Key: {KEY}\r\n");
        stream.write_all(format!("{head}Content-Length: 0\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("half an answer")?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        ensure!(status.starts_with('2'), "{method} {path}: status {status}: {}", body.trim());
        Ok(body.to_owned())
    }

    fn scan(&self, below: &str) -> anyhow::Result<()> {
        self.request("POST", &format!("/rest/db/scan?folder=objects{below}"))?;
        Ok(())
    }

    fn switch(&self, what: &str) -> anyhow::Result<()> {
        if let Some(other) = &self.other {
            self.request("POST", &format!("/rest/system/{what}?device={other}"))?;
        }
        Ok(())
    }
}

impl Side for Syncthing {
    fn invitation(&mut self) -> anyhow::Result<String> {
        Ok(self.invitation.clone())
    }

    fn write(&mut self, numbers: Range<u64>) -> anyhow::Result<()> {
        let one = (numbers.end - numbers.start == 1).then(|| workload::id("bench", numbers.start));
        for number in numbers {
            let file = self.files.join(workload::id("bench", number));
            std::fs::write(file, workload::body(number).to_string())?;
        }
        self.scan(&one.map_or_else(String::new, |id| format!("&sub={id}")))
    }

    fn connect(&mut self) -> anyhow::Result<()> {
        self.switch("resume")
    }

    fn disconnect(&mut self) -> anyhow::Result<()> {
        self.switch("pause")
    }

    fn held(&mut self) -> anyhow::Result<u64> {
        let status = self.request("GET", "/rest/db/status?folder=objects")?;
        let status: Value = serde_json::from_str(&status)?;
        status["localFiles"].as_u64().context("no count of files in the status")
    }

    fn expect(&mut self, number: u64) -> anyhow::Result<()> {
        self.expected = self.files.join(workload::id("bench", number));
        Ok(())
    }

    fn seen(&mut self, limit: Duration) -> anyhow::Result<bool> {
        let began = Instant::now();
        while !self.expected.exists() {
            if began.elapsed() > limit {
                return Ok(false);
            }
            std::thread::sleep(LOOK_TIME);
        }
        Ok(true)
    }

    fn peak_memory_bytes(&self) -> anyhow::Result<u64> {
        peak_memory_bytes(self.child.id())
    }
}
