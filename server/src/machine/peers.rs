//! The other members, as the machine of `core-0` has them: the links to them, and what was promised to them.
//!
//! **Not here**: what comes over links and what is done about it ([`super::commands`]).

use super::links::{Links, Taken};
use crate::consensus::leadership::LinkId;
use crate::consensus::transfer::Arrival;
use crate::replica::{Now, Replica};
use corral_engine::epochs::Epochs;
use std::io::{Read, Write};

/// The other members.
pub(super) struct Peers<S> {
    pub(super) links: Links<S>,
    pub(super) epochs: Epochs,
    pub(super) arrival: Option<(LinkId, Arrival)>,
    /// A learner may have connected.
    pub(super) is_knocked: bool,
}

impl<S: Read + Write> Peers<S> {
    pub(super) fn new(links: Links<S>, epochs: Epochs) -> Peers<S> {
        Peers { links, epochs, arrival: None, is_knocked: false }
    }

    /// Sends what there is to send over a link. Whatever the other side takes of it is a sign of life.
    pub(super) fn flush(&mut self, replica: &mut Replica, now: Now, link: LinkId) {
        match self.links.flush(link) {
            Taken::Nothing => {}
            taken => replica.sent(now.uptime, link, taken == Taken::All),
        }
    }
}
