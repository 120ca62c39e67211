//! Sends a learner a history, in a thread of its own, while `core-0` goes on: the tree, or what the learner lacks of the log on the
//! disk.
//!
//! It goes out in pieces that wait for the link. The log may be let go under the reader, or may turn out not to know the learner's last
//! transaction: then that server gets a snapshot; on the same link, unless something was sent already.
//!
//! **Invariants**: memory is bounded by a batch and a few pieces; what is in memory follows only what was sent to its end.
//!
//! **Not here**: what is read and sent ([`crate::consensus::transfer`]), the link's queue ([`crate::machine::Links`]).

#![expect(clippy::disallowed_methods, reason = "this is where the threads are made, and where they wait")]

use super::Shared;
use crate::consensus::stretch::Stretch;
use crate::consensus::sync::Sync;
use crate::consensus::transfer::{Departure, Stopped, read_stretch};
use crate::machine::Piece;
use corral_proto::peer::Packet;
use corral_proto::{Jute, Zxid};
use crossbeam::channel::Sender;
use std::path::Path;
use std::sync::Weak;
use std::time::Duration;

/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// Nodes that are looked at under one hold of the tree's lock.
const NODES: usize = 64;
/// How often the thread that sends a snapshot looks whether the tree has come far enough.
const WAIT: Duration = Duration::from_millis(2);

/// Starts a thread that sends.
pub(super) fn spawn(send: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let spawned = std::thread::Builder::new().name("transfer".to_owned()).spawn(send);
    spawned.map(drop).map_err(|error| format!("cannot start the thread that sends a history: {error}"))
}

/// Sends the tree as it is at `zxid` or a little later, until it is sent or nobody wants it any more.
pub(super) fn send_tree(shared: &Shared, zxid: Zxid, pieces: &Sender<Piece>, wanted: &Weak<()>) {
    let tree = &shared.crossing.tree;
    while tree.read().last_applied() < zxid {
        if shared.stopping() || wanted.strong_count() == 0 {
            return;
        }
        std::thread::sleep(WAIT);
    }
    let mut piece = Vec::with_capacity(2 * PIECE);
    let mut departure = Departure::new(&tree.read(), zxid, &mut piece);
    let mut more = true;
    while more {
        while more && piece.len() < PIECE {
            more = departure.step(&tree.read(), NODES, PIECE, &mut piece);
        }
        if shared.stopping() || pieces.send(Piece::Bytes(std::mem::take(&mut piece).into())).is_err() {
            return;
        }
        shared.lines[0].bell.ring();
    }
    let _ = pieces.send(Piece::End);
    shared.lines[0].bell.ring();
}

/// Reads the stretch of the log in `dir` and sends it, until that is done or nobody wants it any more.
pub(super) fn send_log(shared: &Shared, dir: &Path, stretch: Stretch, pieces: &Sender<Piece>) {
    let mut out = Out { piece: Vec::with_capacity(2 * PIECE), shared, pieces };
    let Stretch { sid, have, upto, .. } = stretch;
    let read = read_stretch(dir, stretch, |packet| out.packet(packet));
    let last = match read.and_then(|walk| out.flush().map(|()| walk).map_err(Stopped::Unsent)) {
        Ok(walk) => {
            let (told, sent) = (walk.told(), walk.sent());
            let how = match told {
                Some(Sync::Trunc { to }) => format!("TRUNC to {to}"),
                _ => "DIFF".to_owned(),
            };
            tracing::info!("server {sid}, which has {have}, is sent the log: {how}, {sent} transactions up to {upto}");
            Piece::End
        }
        Err(Stopped::Unsent(Unwanted)) => return,
        Err(Stopped::Lacking(why)) => {
            tracing::warn!("server {sid}, which has {have}, cannot be sent what it lacks from the log: {why}");
            Piece::Broken(format!("the log does not have what it lacks: {why}"))
        }
    };
    let _ = pieces.send(last);
    shared.lines[0].bell.ring();
}

/// The link is gone.
struct Unwanted;

struct Out<'a> {
    piece: Vec<u8>,
    shared: &'a Shared,
    pieces: &'a Sender<Piece>,
}

impl Out<'_> {
    fn packet(&mut self, packet: Packet<'_>) -> Result<(), Unwanted> {
        packet.encode(&mut self.piece);
        if self.piece.len() < PIECE { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), Unwanted> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.pieces.send(Piece::Bytes(piece.into())).map_err(|_| Unwanted)?;
        self.shared.lines[0].bell.ring();
        Ok(())
    }
}
