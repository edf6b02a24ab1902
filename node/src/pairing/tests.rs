//! Pairing over real sockets on loopback: strangers who say nothing, and outcomes that come late.

mod pests;

use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::time::{sleep_until, timeout};

use super::*;
use crate::data_dir::{Clock, DataDir};
use crate::keys::DeviceKey;
use crate::transport::{Config, DialErrorKind, Event, Events, STRANGERS_MAX, spawn};

/// Longer than anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A device that pairs, without the rest of a daemon.
struct Host {
    core: Core,
    transport: Transport,
    events: Events,
    pairings: Pairings,
    inputs: mpsc::Receiver<PairingInput>,
    addr: Multiaddr,
    _dir: TempDir,
}

async fn transport(key: &DeviceKey) -> (Transport, Events, Multiaddr) {
    transport_at(key, "/ip4/127.0.0.1/tcp/0").await
}

async fn transport_at(key: &DeviceKey, addr: &str) -> (Transport, Events, Multiaddr) {
    let (transport, mut events) = spawn(&Config::default(), key).unwrap();
    transport.listen(addr.parse().unwrap()).unwrap();
    loop {
        if let Some(Event::Listening { addr }) = events.recv().await {
            return (transport, events, addr);
        }
    }
}

impl Host {
    async fn new(name: &str) -> Self {
        Self::listening(name, "/ip4/127.0.0.1/tcp/0").await
    }

    async fn listening(name: &str, addr: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let data = DataDir::new(&dir.path().join(name));
        data.init(Some(name)).unwrap();
        let data = DataDir::new(data.path());
        let core = Core::open(Clock::start(), &data).unwrap();
        let (transport, events, addr) = transport_at(&core.key, addr).await;
        let (sender, inputs) = mpsc::channel(64);
        let pairings = Pairings::new(transport.clone(), sender);
        Self { core, transport, events, pairings, inputs, addr, _dir: dir }
    }

    fn invite(&mut self) -> InviteDocument {
        let now = self.core.now();
        let invite = self.pairings.invite(&self.core, now, None, false, Vec::new()).unwrap();
        self.transport.set_pairing_open(true);
        invite
    }

    fn join(&mut self, code: &str, addrs: &[&Multiaddr]) -> String {
        let addrs: Vec<String> = addrs.iter().map(ToString::to_string).collect();
        let now = self.core.now();
        self.pairings.join(&self.core, now, code, &addrs, Some(&[])).unwrap().id
    }

    /// Takes one input, or waits for the next timeout, and steps.
    async fn turn(&mut self) {
        let due = self.pairings.poll_timeout().map(|at| self.core.clock.instant(at));
        let wake = async {
            match due {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = self.events.recv() => {
                let now = self.core.now();
                match event {
                    Some(Event::Pairing(pairing)) => self.pairings.opened(&self.core, now, pairing),
                    Some(Event::PairingFailed { attempt, why }) => {
                        self.pairings.not_opened(now, attempt, &why);
                    }
                    _ => {}
                }
            }
            Some(input) = self.inputs.recv() => self.pairings.handle(self.core.now(), input),
            () = wake => {}
        }
        let now = self.core.now();
        self.pairings.step(&mut self.core, now).unwrap();
    }

    fn status(&self, id: &str) -> JoinStatus {
        self.pairings.join_status(id).unwrap().status
    }
}

/// Lets both go on until the join is over.
async fn until_over(inviter: &mut Host, joiner: &mut Host, id: &str) -> JoinStatus {
    let over = async {
        loop {
            let status = joiner.status(id);
            if matches!(status, JoinStatus::Joined { .. } | JoinStatus::Failed { .. }) {
                return status;
            }
            tokio::select! {
                () = inviter.turn() => {}
                () = joiner.turn() => {}
            }
        }
    };
    timeout(PATIENCE, over).await.expect("joining ends")
}

/// Strangers with a pairing stream each, who say nothing.
async fn silent_strangers(inviter: &mut Host, number: usize) -> Vec<transport::Pairing> {
    let mut held = Vec::new();
    for stranger in 0..number {
        let key = DeviceKey::from_seed([100 + stranger as u8; 32]);
        let (transport, mut events, _) = transport(&key).await;
        transport.open_pairing(1, inviter.addr.clone(), None).unwrap();
        let open = async {
            loop {
                tokio::select! {
                    event = events.recv() => match event {
                        Some(Event::Pairing(pairing)) => break pairing,
                        Some(Event::PairingFailed { why, .. }) => panic!("{why:?}"),
                        _ => {}
                    },
                    () = inviter.turn() => {}
                }
            }
        };
        held.push(timeout(PATIENCE, open).await.expect("a stranger's stream opens"));
        // The transport lives on with the task that reads its events.
        tokio::spawn(async move {
            let _transport = transport;
            while events.recv().await.is_some() {}
        });
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_say_nothing_keep_no_joiner_out() {
    let (mut laptop, mut desktop) = (Host::new("laptop").await, Host::new("desktop").await);
    let invite = laptop.invite();
    let held = silent_strangers(&mut laptop, STREAMS_MAX).await;
    let started = Instant::now();
    let addr = laptop.addr.clone();
    let id = desktop.join(&invite.code, &[&addr]);
    let status = until_over(&mut laptop, &mut desktop, &id).await;
    assert!(matches!(status, JoinStatus::Joined { .. }), "{status:?}");
    let limit = Duration::from_millis(FIRST_FRAME_MS_MAX / 2);
    assert!(started.elapsed() < limit, "{:?}: it waited for the others", started.elapsed());
    // To say nothing was no guess: the invite was still good.
    assert_eq!(held.len(), STREAMS_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_says_nothing_is_closed_in_time() {
    let mut laptop = Host::new("laptop").await;
    let invite = laptop.invite();
    let mut held = silent_strangers(&mut laptop, 1).await;
    let mut stranger = held.pop().unwrap();
    let started = Instant::now();
    let ended = async {
        loop {
            tokio::select! {
                frame = stranger.reader.recv() => return frame,
                () = laptop.turn() => {}
            }
        }
    };
    let ended = timeout(PATIENCE, ended).await.expect("the stream ends");
    assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
    assert!(started.elapsed() > Duration::from_millis(FIRST_FRAME_MS_MAX / 2));
    let now = laptop.core.now();
    assert_eq!(laptop.pairings.invite_status(now, &invite.id).unwrap(), InviteStatus::Waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_late_for_an_attempt_is_not_taken_for_the_next() {
    let (mut laptop, mut desktop) = (Host::new("laptop").await, Host::new("desktop").await);
    let mut other = Host::new("other").await;
    let (right, wrong) = (laptop.invite(), other.invite());
    let addr = other.addr.clone();
    desktop.join(&wrong.code, &[&addr]);
    let now = desktop.core.now();
    desktop.pairings.step(&mut desktop.core, now).unwrap();
    // Its stream opens, and the attempt has ended meanwhile: nobody took the stream.
    let late = async {
        loop {
            tokio::select! {
                event = desktop.events.recv() => if let Some(Event::Pairing(p)) = event { return p },
                () = other.turn() => {}
            }
        }
    };
    let late = timeout(PATIENCE, late).await.unwrap();
    desktop.pairings.join.as_mut().unwrap().fail("test", "it is over".into(), "none");
    let addr = laptop.addr.clone();
    let id = desktop.join(&right.code, &[&addr]);
    desktop.pairings.opened(&desktop.core, now, late);
    assert!(matches!(desktop.status(&id), JoinStatus::Searching), "{:?}", desktop.status(&id));
    // Nor is a late failure counted as one of its own.
    let why = Attempt { addr, kind: DialErrorKind::NotSpoken, error: "late".into() };
    desktop.pairings.not_opened(now, 1, &why);
    let status = until_over(&mut laptop, &mut desktop, &id).await;
    assert!(matches!(status, JoinStatus::Joined { .. }), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_ends_with_who_waits_for_it() {
    let mut laptop = Host::new("laptop").await;
    let start = laptop.core.now();
    let after = |ms| Now { mono: start.mono.after_ms(ms), ..start };
    let open = |laptop: &mut Host, watched| {
        laptop.pairings.invite(&laptop.core, start, None, watched, Vec::new()).unwrap().id
    };
    let status = |laptop: &mut Host, id: &str, ms| {
        laptop.pairings.step(&mut laptop.core, after(ms)).unwrap();
        laptop.pairings.invite_status(after(ms), id).unwrap()
    };
    let id = open(&mut laptop, true);
    assert_eq!(laptop.pairings.poll_timeout(), Some(after(INVITE_WATCH_MS).mono));
    // Asked after again and again, it stays; then nobody asks.
    for n in 1..4 {
        assert_eq!(status(&mut laptop, &id, n * (INVITE_WATCH_MS - 1)), InviteStatus::Waiting);
    }
    let late = 3 * (INVITE_WATCH_MS - 1) + INVITE_WATCH_MS;
    assert_eq!(status(&mut laptop, &id, late), InviteStatus::Cancelled);
    assert!(!laptop.pairings.is_open());
    // One that nobody is to wait for stays until it expires.
    let id = open(&mut laptop, false);
    assert_eq!(status(&mut laptop, &id, late), InviteStatus::Waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_without_an_address_is_refused_where_nobody_is_looked_for() {
    let mut desktop = Host::new("desktop").await;
    let now = desktop.core.now();
    let code = "7-walnut-opera-tiger";
    let error = desktop.pairings.join(&desktop.core, now, code, &[], None).unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (ErrorKind::BadInput, "inviter_nowhere_to_look"));
    let address = "/ip4/127.0.0.1/tcp/1".to_owned();
    assert!(desktop.pairings.join(&desktop.core, now, code, &[address], None).is_ok());
}

/// Found in review: what a joiner was told of who needs no admission might not have been written yet.
#[tokio::test]
async fn joiner_that_is_a_member_already_is_told_nothing_that_is_not_durable() {
    let (mut inviter, mut joiner) = (Host::new("inviter").await, Host::new("joiner").await);
    let (device, mesh) = (joiner.core.key.device(), joiner.core.engine.roster().mesh());
    let (core, now) = (&mut inviter.core, joiner.core.now());
    core.engine.admit(&mut core.store, now, device, "joiner", Some(mesh)).unwrap();
    core.commit().unwrap();
    // The turn in which the joiner asks has brought a record, and goes on.
    core.engine.rename(&mut core.store, now, device, "renamed").unwrap();
    let code = inviter.invite().code;
    let addr = inviter.addr.clone();
    let id = joiner.join(&code, &[&addr]);
    let status = until_over(&mut inviter, &mut joiner, &id).await;
    assert!(matches!(status, JoinStatus::Joined { .. }), "{status:?}");
    let snapshot = inviter.core.store.reader().snapshot().unwrap();
    let durable = snapshot.roster_records().unwrap();
    for record in records(&joiner.core) {
        assert!(durable.contains(&record.0), "told before it was durable");
    }
}
