"""Servers and name services for tests of the egress proxy: what was connected to, by whom, and what was asked."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Names:
    """A name service whose answers change: each look-up takes the next answer of its name, the last one for ever."""

    def __init__(self, answers: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._answers = {name: list(rows) for name, rows in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        rows = self._answers.get(host)
        if rows is None:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return rows.pop(0) if len(rows) > 1 else rows[0]


@dataclass
class Origin:
    """A server that counts who connects, and answers paths from a table."""

    port: int = 0
    connections: int = 0
    """TCP connections, whatever was asked on them."""
    heads: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path and headers of each request."""
    bodies: list[bytes] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    """What is at each path; ranges are given."""
    moved: dict[str, str] = field(default_factory=dict)
    """Where a path redirects to."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: Origin

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _note(self) -> None:
        self.state.heads.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))

    def do_GET(self) -> None:
        self._note()
        path = self.path.partition("?")[0]
        if path in self.state.moved:
            self._answer(302, b"", {"Location": self.state.moved[path]})
        elif path not in self.state.files:
            self._answer(404, b"not here", {})
        else:
            self._file(self.state.files[path])

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self._note()
        self.state.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(200, b"{}", {"Content-Type": "application/json"})

    def _file(self, data: bytes) -> None:
        wanted = self.headers.get("Range", "")
        if not wanted.startswith("bytes="):
            self._answer(200, data, {"Accept-Ranges": "bytes"})
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(data)), len(data) - 1)
        piece = data[start : end + 1]
        self._answer(206, piece, {"Content-Range": f"bytes {start}-{end}/{len(data)}", "Accept-Ranges": "bytes"})

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextlib.contextmanager
def origin(*, certificate: Certificate | None = None, host: str = "127.0.0.1") -> Iterator[Origin]:
    """A server on the loopback, with TLS where a certificate is given."""
    state = Origin()

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def get_request(self) -> tuple[socket.socket, object]:
            found = super().get_request()
            state.connections += 1
            return found

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that hangs up is what some tests are about

    server = Server((host, 0), type("Handler", (_Handler,), {"state": state}))
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.server)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    state.port = int(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def raw_origin(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that does with each connection what `answer` does; its port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection, contextlib.suppress(OSError):
                    answer(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield int(listening.getsockname()[1])
    finally:
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(2)


@dataclass(frozen=True)
class Certificate:
    """What a server with TLS and its clients need."""

    server: Path
    """Key and certificate of the server."""
    authority: Path
    """Certificate that clients trust."""


def make_certificate(folder: Path, *names: str) -> Certificate:
    """A certificate for `names` and the loopback, and the authority that signed it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def sign(
        name: str, issuer: str, signer: ec.EllipticCurvePrivateKey | None
    ) -> tuple[bytes, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        numbers = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), True)
            .add_extension(x509.SubjectAlternativeName([*map(x509.DNSName, names), *numbers]), False)
            .sign(signer or key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM), key

    above, signer = sign("authority", "authority", None)
    below, key = sign(names[0], "authority", signer)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    found = Certificate(folder / "server.pem", folder / "authority.pem")
    found.server.write_bytes(below + key.private_bytes(*form))
    found.authority.write_bytes(above)
    return found
