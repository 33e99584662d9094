"""A relay made of pyD3TN, the Python library of uD3TN's makers: takes bundles over MTCP, reads each, and passes it on.

d3tn_relay.py ADDRESS PORT NODE=ADDRESS:PORT...

Writes one line for each bundle: source, destination, octets of its payload.
"""

import socket
import sys
import threading

from pyd3tn.bundle7 import Bundle
from pyd3tn.mtcp import MTCPConnection, MTCPSocket

ROUTES = {}
for argument in sys.argv[3:]:
    node, _, address = argument.partition("=")
    host, _, port = address.rpartition(":")
    ROUTES[node] = (host, int(port))


def relay(connection):
    links = {}
    incoming = MTCPSocket(connection)
    while True:
        data = incoming.recv_bundle()
        bundle = Bundle.parse(data)
        source, destination = str(bundle.primary_block.source), str(bundle.primary_block.destination)
        print(source, destination, len(bundle.payload_block.data), flush=True)
        node = destination.removeprefix("ipn:").partition(".")[0]
        if node not in links:
            links[node] = MTCPConnection(*ROUTES[node])
            links[node].connect()
        links[node].send_bundle(data)


with socket.create_server((sys.argv[1], int(sys.argv[2]))) as server:
    while True:
        connection, _ = server.accept()
        threading.Thread(target=relay, args=(connection,), daemon=True).start()
