"""POSTs standard input over HTTP/3 with aioquic and prints status and body as JSON.

h3_post.py ADDRESS PORT SERVER_NAME CA CERTIFICATE|- KEY|- PATH [HEADER:VALUE...]
"""

import asyncio
import json
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = None
        self.answer = asyncio.get_running_loop().create_future()
        self.status = None
        self.body = b""

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        if isinstance(event, ConnectionTerminated) and not self.answer.done():
            self.answer.set_exception(
                ConnectionError(f"closed: {event.error_code:#x} {event.reason_phrase}")
            )
        if self.http is None:
            return
        for part in self.http.handle_event(event):
            if isinstance(part, HeadersReceived):
                status = int(dict(part.headers)[b":status"])
                if status >= 200:
                    self.status = status
            elif isinstance(part, DataReceived):
                self.body += part.data
            if part.stream_ended and not self.answer.done():
                self.answer.set_result(None)

    async def post(self, authority, path, headers, body):
        stream = self._quic.get_next_available_stream_id()
        fields = [
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", authority.encode()),
            (b":path", path.encode()),
        ]
        fields += [(name.lower().encode(), value.strip().encode()) for name, value in headers]
        fields.append((b"content-length", str(len(body)).encode()))
        self.http.send_headers(stream, fields)
        self.http.send_data(stream, body, end_stream=True)
        self.transmit()
        await asyncio.wait_for(self.answer, 30)
        return self.status, self.body.decode()


async def main():
    address, port, name, ca, certificate, key, path = sys.argv[1:8]
    headers = [header.split(":", 1) for header in sys.argv[8:]]
    body = sys.stdin.buffer.read()
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=name)
    configuration.load_verify_locations(ca)
    if certificate != "-":
        configuration.load_cert_chain(certificate, key)
    async with connect(address, int(port), configuration=configuration, create_protocol=Client) as client:
        status, text = await client.post(f"{name}:{port}", path, headers, body)
    print(json.dumps({"status": status, "body": text}))


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (ConnectionError, asyncio.TimeoutError) as error:
        print(json.dumps({"status": None, "body": f"{type(error).__name__}: {error}"}))
