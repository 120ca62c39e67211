//! The two ways from a worker to the replica: a call where both live on one core, a queue from everywhere else. On both, the
//! stages before the log are timed: two looks at the clock a write.

use super::crossing::{Crossing, Handed, Parcel, ToReplica};
use crate::clients::worker::Port;
use crate::replica::{Now, Replica};
use crate::requests::WriteRequest;
use crate::requests::session::ConnId;
use crate::stages::{Stage, Stages, Timeline};
use corral_engine::Tree;
use corral_engine::txnlog::Group;
use corral_proto::SessionId;
use std::time::Duration;

/// On the replica's own core: no hand-off, no copy.
pub(super) struct Direct<'a> {
    pub(super) replica: &'a mut Replica,
    pub(super) log: &'a mut Group,
    pub(super) timeline: &'a mut Timeline,
    pub(super) now: Now,
}

impl Direct<'_> {
    /// Begins when the write is `handed`; says when it was done.
    fn write(&mut self, crossing: &Crossing, tree: &Tree, request: &WriteRequest<'_>, handed: Handed) -> Duration {
        let before = self.log.last();
        self.replica.request(tree, self.log, self.now, request);
        let done = crossing.host.uptime();
        if self.log.last() > before {
            self.timeline.sequenced(self.log.last(), handed.waited, done.saturating_sub(handed.at), done);
        }
        done
    }
}

/// A longer password is wrong, and is not carried around: one byte more than the right one has says as much.
const PASSWORD_BYTES: usize = 17;

/// Whichever of the two a core has.
pub(super) enum Route<'a> {
    Direct(Direct<'a>),
    /// What is handed over when the run has ended.
    Queue(&'a mut Parcel),
}

/// The way to the replica for one run of requests, timed.
pub struct Timed<'a> {
    crossing: &'a Crossing,
    stages: &'a mut Stages,
    route: Route<'a>,
    /// When the newest write of this run was handed on, or the run began.
    mark: Duration,
    /// Frames that have come since then.
    frames: u32,
}

impl<'a> Timed<'a> {
    /// A run that begins now.
    pub(super) fn new(crossing: &'a Crossing, stages: &'a mut Stages, route: Route<'a>) -> Timed<'a> {
        Timed { crossing, stages, route, mark: crossing.host.uptime(), frames: 0 }
    }

    /// When the run began, or its newest write was handed on.
    pub fn mark(&self) -> Duration {
        self.mark
    }

    /// The next frame of the run comes.
    pub fn next_frame(&mut self) {
        self.frames += 1;
    }
}

impl Port for Timed<'_> {
    fn has_room(&self) -> bool {
        match &self.route {
            Route::Direct(_) => true,
            Route::Queue(parcel) => !parcel.is_full(),
        }
    }

    fn write(&mut self, tree: &Tree, request: &WriteRequest<'_>) {
        let at = self.crossing.host.uptime();
        // Only a frame that comes right after the mark has been decoded since; before any other, reads were answered.
        let decode = (std::mem::take(&mut self.frames) == 1).then(|| at.saturating_sub(self.mark));
        let waited = at.saturating_sub(request.since).saturating_sub(decode.unwrap_or_default());
        let handed = Handed { at, waited };
        self.mark = match &mut self.route {
            Route::Direct(direct) => direct.write(self.crossing, tree, request, handed),
            Route::Queue(parcel) => {
                parcel.write(request, handed);
                self.crossing.host.uptime()
            }
        };
        if let Some(decode) = decode {
            self.stages.record(Stage::Decode, decode, 1);
        }
    }

    fn open_session(&mut self, tree: &Tree, conn: ConnId, timeout_ms: i32) {
        match &mut self.route {
            Route::Direct(Direct { replica, log, now, .. }) => replica.open_session(tree, log, *now, conn, timeout_ms),
            Route::Queue(parcel) => parcel.put(ToReplica::Open { conn, timeout_ms }),
        }
    }

    fn renew_session(&mut self, conn: ConnId, id: SessionId, password: &[u8], timeout_ms: i32) {
        match &mut self.route {
            Route::Direct(Direct { replica, now, .. }) => replica.renew_session(*now, conn, id, password, timeout_ms),
            Route::Queue(parcel) => {
                let password = password[..password.len().min(PASSWORD_BYTES)].into();
                parcel.put(ToReplica::Renew { conn, id, password, timeout_ms });
            }
        }
    }
}

impl Parcel {
    /// Arrives at `now`.
    pub(super) fn deliver(self, crossing: &Crossing, tree: &Tree, direct: &mut Direct<'_>, mut now: Duration) {
        let mut bytes = &self.bytes[..];
        for message in self.messages {
            match message {
                ToReplica::Write { conn, session, who, xid, op, since, body, reads, handed } => {
                    let waited = handed.waited + now.saturating_sub(handed.at);
                    let body = bytes.split_off(..body).expect("it was put in");
                    let reads = bytes.split_off(..reads).expect("they were put in");
                    let request = WriteRequest { conn, session, who: &who, xid, op, body, since, reads };
                    now = direct.write(crossing, tree, &request, Handed { at: now, waited });
                }
                ToReplica::Open { conn, timeout_ms } => {
                    direct.replica.open_session(tree, direct.log, direct.now, conn, timeout_ms);
                }
                ToReplica::Renew { conn, id, password, timeout_ms } => {
                    direct.replica.renew_session(direct.now, conn, id, &password, timeout_ms);
                }
                ToReplica::Heard(sessions) => direct.replica.touch(&sessions, direct.now.uptime),
            }
        }
    }
}
