//! Binding a listener so that a port in use is an error, and every worker has a queue of its own.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// How many connections the kernel queues before they are accepted.
const BACKLOG: i32 = 4096;

/// How many bytes of an answer the kernel takes over before a client has room for them. Without a bound it takes megabytes for each
/// client that asks for much and reads slowly, and copying those keeps everybody else waiting.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 512 * 1024;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", explain(.error))]
pub struct BindError {
    /// The address, as configured.
    pub address: SocketAddr,
    /// What the system said.
    pub error: io::Error,
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the port is already in use by another program".to_owned(),
        io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE".to_owned(),
        _ => error.to_string(),
    }
}

/// Binds `queues` listeners on one address. With several, each has `SO_REUSEPORT` and the kernel spreads
/// connections over them; since that option would also let a second process join silently, the address is
/// first bound without it. Port 0 chooses one port for all.
///
/// # Errors
/// [`BindError`] if the address is taken or not ours.
pub fn bind(address: SocketAddr, queues: usize) -> Result<Vec<TcpListener>, BindError> {
    let failed = |error| BindError { address, error };
    let only = listen(address, Sharing::Exclusive).map_err(failed)?;
    if queues <= 1 {
        return Ok(vec![only]);
    }
    let chosen = only.local_addr().map_err(failed)?;
    drop(only);
    (0..queues).map(|_| listen(chosen, Sharing::ReusePort)).collect::<io::Result<_>>().map_err(failed)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Exclusive,
    ReusePort,
}

fn listen(address: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a previous run in TIME_WAIT must not keep a restart from binding.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(sharing == Sharing::ReusePort)?;
    socket.set_nonblocking(true)?;
    // Accepted connections have what their listener has.
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error_even_though_workers_share_it() {
        let first = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let taken = first[0].local_addr().unwrap();
        assert_eq!(first[1].local_addr().unwrap(), taken);
        let error = bind(taken, 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot listen on {taken}: the port is already in use by another program")
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_accepted_connection_takes_over_a_bounded_part_of_an_answer() {
        let listener = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
        listener.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(socket2::SockRef::from(&accepted).tcp_notsent_lowat().unwrap(), UNSENT_BYTES);
    }
}
