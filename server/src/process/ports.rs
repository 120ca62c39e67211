//! Where the other members reach this one: the election port, which is listened on from the start, and the quorum port, on which only a
//! leader listens.

use crate::config::Members;
use mio::net::TcpListener;
use std::net::{SocketAddr, ToSocketAddrs};

/// Both ports.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) election: TcpListener,
    pub(super) quorum: SocketAddr,
}

impl Ports {
    /// Listens on the election port, and makes sure that the quorum port can be listened on.
    pub(super) fn open(members: &Members, on_all: bool) -> Result<Ports, String> {
        let own = &members.all[&members.me];
        let listen = |port: u16, what: &str| {
            let host = if on_all { "0.0.0.0" } else { own.host.as_str() };
            let refused = |error: std::io::Error| {
                format!(
                    "{host}:{port}: cannot listen there for the other members: {error}; it is the {what} port of server.{}",
                    members.me
                )
            };
            let address =
                (host, port).to_socket_addrs().map_err(refused)?.next().ok_or(format!("{host}: no address"))?;
            corral_net::listener::listen(address, false, -1).map(|listener| (listener, address)).map_err(refused)
        };
        let (election, _) = listen(own.election_port, "election")?;
        let (_, quorum) = listen(own.quorum_port, "quorum")?;
        Ok(Ports { election, quorum })
    }
}
