"""Opens POSTs over HTTP/3 that do not end, and prints their statuses as JSON.

h3_hold.py ADDRESS PORT SERVER_NAME CA CERTIFICATE KEY PATH KIND COUNT

KIND: silent (nothing after the first octets), drip (an octet now and then), endless (as much as is taken, for ever).
"""

import asyncio
import json
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated, StopSendingReceived, StreamReset

BEGIN = (
    b"EHLO earth.example\r\nMAIL FROM:<alice@earth.example>\r\nRCPT TO:<bob@moon.example>\r\nDATA\r\nSubject: held\r\n\r\n"
)
LINES = (b"x" * 78 + b"\r\n") * 200


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = None
        self.statuses = {}
        self.stopped = set()
        self.reset = set()
        self.lost = None

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        if isinstance(event, ConnectionTerminated):
            self.lost = f"closed: {event.error_code:#x} {event.reason_phrase}"
        if isinstance(event, StopSendingReceived):
            self.stopped.add(event.stream_id)
        if isinstance(event, StreamReset):
            self.reset.add(event.stream_id)
        if self.http is None:
            return
        for part in self.http.handle_event(event):
            if isinstance(part, HeadersReceived):
                self.statuses[part.stream_id] = int(dict(part.headers)[b":status"])

    def begin(self, authority, path):
        stream = self._quic.get_next_available_stream_id()
        fields = [
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", authority.encode()),
            (b":path", path.encode()),
            (b"content-type", b"application/batch-SMTP"),
        ]
        self.http.send_headers(stream, fields)
        self.http.send_data(stream, BEGIN, end_stream=False)
        self.transmit()
        return stream

    def is_over(self, stream):
        return stream in self.statuses or stream in self.reset or self.lost is not None

    def may_send(self, stream):
        # The answer to a stream that was stopped can come in a later datagram than the stop.
        return not self.is_over(stream) and stream not in self.stopped


async def hold(client, stream, kind):
    # At most 40 MB, or for a minute.
    for _ in range(600):
        await asyncio.sleep(0.1 if kind != "endless" else 0.025)
        if client.is_over(stream):
            break
        if not client.may_send(stream):
            continue
        if kind == "drip":
            client.http.send_data(stream, b"x", end_stream=False)
        elif kind == "endless":
            client.http.send_data(stream, LINES * 4, end_stream=False)
        client.transmit()
    return client.statuses.get(stream)


async def main():
    address, port, name, ca, certificate, key, path, kind, count = sys.argv[1:]
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=name)
    configuration.load_verify_locations(ca)
    configuration.load_cert_chain(certificate, key)
    async with connect(address, int(port), configuration=configuration, create_protocol=Client) as client:
        streams = [client.begin(f"{name}:{port}", path) for _ in range(int(count))]
        statuses = await asyncio.gather(*(hold(client, stream, kind) for stream in streams))
        print(json.dumps({"statuses": statuses, "lost": client.lost}))


asyncio.run(main())
