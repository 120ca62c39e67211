//! Sends a learner what it lacks from the log on the disk, in a thread of its own, while `core-0` goes on appending to it.
//!
//! What is read goes out in the packets that a proposal and its commit have, in pieces that wait for the socket. The log may be let go
//! under the reader, or may turn out not to know the learner's last transaction: then that server gets a snapshot; on the same link,
//! unless something was sent already.
//!
//! **Invariants**: memory is bounded by a batch and a few pieces; what is in memory follows only what was sent to its end.
//!
//! **Not here**: what is read and sent ([`read_stretch`]), the link's queue ([`super::links`]).

use super::Shared;
use super::links::Piece;
use super::peers::PIECE;
use crate::transfer::{Stopped, read_stretch};
use crate::zab::stretch::Stretch;
use crate::zab::sync::Sync;
use corral_proto::Jute;
use corral_proto::peer::Packet;
use crossbeam::channel::Sender;
use std::path::Path;

/// No more is read for one learner: it holds all of it in memory before it logs anything.
const BYTES_MAX: u64 = 256 << 20;

/// Bytes of the log that are read rather than sending a snapshot: this part of the newest one's size. As with Apache, a limit of
/// nothing is none.
pub(super) fn limit(factor: f64, snapshot_bytes: Option<u64>) -> u64 {
    match (factor * snapshot_bytes.unwrap_or(0) as f64) as u64 {
        0 => BYTES_MAX,
        limit => limit.min(BYTES_MAX),
    }
}

/// Reads the stretch and sends it, until that is done or nobody wants it any more.
pub(super) fn send(shared: &Shared, dir: &Path, stretch: Stretch, pieces: &Sender<Piece>) {
    let mut out = Out { piece: Vec::with_capacity(2 * PIECE.0), shared, pieces };
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
        if self.piece.len() < PIECE.0 { Ok(()) } else { self.flush() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_snapshot_lets_more_of_the_log_be_sent_and_none_at_all_what_a_learner_can_hold() {
        assert_eq!(limit(0.5, Some(1000)), 500);
        assert_eq!([limit(0.33, None), limit(0.0, Some(1000)), limit(1.0, Some(1 << 40))], [BYTES_MAX; 3]);
    }
}
