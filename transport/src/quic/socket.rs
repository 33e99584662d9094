//! UDP sockets with room for what arrives while we are busy.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Octets that the kernel is asked to keep in each direction; a burst that does not fit is lost, and repaired a round trip later.
const BUFFER: usize = 4 << 20;

/// A socket on `address`.
pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    enlarge(&socket);
    Ok(socket)
}

/// A client's socket on a free port, for both address families, or for IPv4 where the host has no IPv6.
pub(crate) fn any() -> io::Result<UdpSocket> {
    let socket = both_families().or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    enlarge(&socket);
    Ok(socket)
}

fn both_families() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(false)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into())?;
    Ok(socket.into())
}

/// Asks for larger buffers; the system grants less without saying so.
fn enlarge(socket: &UdpSocket) {
    let socket = SockRef::from(socket);
    let asked = socket
        .set_recv_buffer_size(BUFFER)
        .and_then(|()| socket.set_send_buffer_size(BUFFER));
    let granted = socket
        .recv_buffer_size()
        .unwrap_or(0)
        .min(socket.send_buffer_size().unwrap_or(0));
    if asked.is_err() || granted < BUFFER {
        tracing::debug!(
            wanted = BUFFER,
            granted,
            "the system grants smaller UDP buffers; net.core.rmem_max and wmem_max limit them"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn buffers_are_as_large_as_the_system_allows() {
        let limit = |name: &str| {
            let text = std::fs::read_to_string(format!("/proc/sys/net/core/{name}")).unwrap();
            text.trim().parse::<usize>().unwrap()
        };
        let socket = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let socket = SockRef::from(&socket);
        assert!(socket.recv_buffer_size().unwrap() >= BUFFER.min(limit("rmem_max")));
        assert!(socket.send_buffer_size().unwrap() >= BUFFER.min(limit("wmem_max")));
        assert!(any().unwrap().local_addr().unwrap().port() > 0);
    }
}
