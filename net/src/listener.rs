//! Listening sockets: one for each core, all on the same address (`SO_REUSEPORT`), so that cores accept without a hand-off.

use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;

/// Connections that wait to be accepted when the configuration does not say; the kernel's own cap applies as well.
const BACKLOG: i32 = 1024;

/// Binds and listens on `address`. With `shared`, others that ask for the same may bind it too. `backlog` below zero is the
/// default.
pub fn listen(address: SocketAddr, shared: bool, backlog: i32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server must get its port back although connections of its former life linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(if backlog < 0 { BACKLOG } else { backlog })?;
    Ok(TcpListener::from_std(socket.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_address_is_shared_among_those_who_ask_for_it_only() {
        let any = "127.0.0.1:0".parse().unwrap();
        let first = listen(any, true, -1).unwrap();
        let address = first.local_addr().unwrap();
        let second = listen(address, true, -1).unwrap();
        assert_eq!(second.local_addr().unwrap(), address);
        assert_eq!(listen(address, false, -1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
