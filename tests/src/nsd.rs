//! NSD with one zone.

use std::{net::SocketAddr, net::UdpSocket, time::Duration};

use crate::{Process, Site, peer, wait};

/// A running name server.
#[derive(Debug)]
pub struct Nsd {
    /// Where it answers.
    pub address: SocketAddr,
    process: Process,
}

impl Nsd {
    /// Serves `zone` with `records` (lines of a zone file, names relative to the zone).
    pub fn start(site: &Site, zone: &str, records: &str) -> Self {
        Self::start_on(site, site.socket(), zone, records)
    }

    /// The same on a given address.
    pub fn start_on(site: &Site, address: SocketAddr, zone: &str, records: &str) -> Self {
        let nsd = peer::program("/usr/sbin/nsd", "nsd");
        let folder = site.make_folder("nsd");
        let folder = folder.display();
        site.write(
            "nsd/zone",
            format!(
                "$ORIGIN {zone}.\n$TTL 5\n@ IN SOA ns hostmaster 1 3600 600 86400 1\n@ IN NS ns\nns IN A {}\n{records}\n",
                address.ip()
            ),
        );
        let configuration = site.write(
            "nsd/nsd.conf",
            format!(
                "server:\n ip-address: {}@{}\n username: \"\"\n chroot: \"\"\n zonesdir: {folder}\n database: \"\"\n\
                 \x20pidfile: {folder}/nsd.pid\n xfrdfile: {folder}/xfrd.state\n zonelistfile: {folder}/zone.list\n\
                 \x20xfrdir: {folder}\n server-count: 1\n do-ip6: no\n\
                 remote-control:\n control-enable: no\nzone:\n name: {zone}\n zonefile: zone\n",
                address.ip(),
                address.port()
            ),
        );
        let arguments = ["-d".into(), "-c".into(), configuration.into_os_string()];
        let mut process = Process::start(site, "nsd", &nsd, arguments);
        process.wait_ready(|| answers(address, zone));
        Self { address, process }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
        wait::until("NSD is gone", Duration::from_secs(10), || {
            !wait::listens(self.address)
        });
    }
}

/// Asks for the zone's SOA.
fn answers(server: SocketAddr, zone: &str) -> bool {
    let socket = UdpSocket::bind((server.ip(), 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut question = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in zone.split('.') {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 6, 0, 1]);
    let mut answer = [0; 512];
    socket.send_to(&question, server).is_ok()
        && socket
            .recv(&mut answer)
            .is_ok_and(|length| length > 12 && answer[3] & 0x0f == 0 && answer[7] > 0)
}
