"""Real servers on this machine that take notices: one of HTTP, one of mail."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PASSWORD = "open sesame"  # noqa: S105 - of a server of tests


@dataclass
class WebReceiver:
    """What was posted, and how the next posts are answered: status and headers, 204 after that.

    `before` is called with each post before it is answered.
    """

    url: str = ""
    posts: list[tuple[str, Mapping[str, str], Any]] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    before: Callable[[], object] = lambda: None

    @property
    def bodies(self) -> list[Any]:
        return [body for _, _, body in self.posts]

    def titles(self) -> list[str]:
        """Of what the generic webhook, which tells all, was sent."""
        return [body["title"] for body in self.bodies]


@contextmanager
def web_receiver() -> Iterator[WebReceiver]:
    """Take posts on a free port."""
    import json

    receiver = WebReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            receiver.posts.append((self.path, dict(self.headers), body))
            receiver.before()
            status, headers = receiver.answers.pop(0) if receiver.answers else (204, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            receiver.posts.append((self.path, dict(self.headers), None))
            self.send_error(404)

        def log_message(self, *_arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_arguments: object) -> None:
            pass  # a client that was killed, or gave up

    with Server(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


@dataclass
class MailReceiver:
    """What was mailed, by whom it was logged in, and the only password that is taken."""

    password: str
    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    rcpts: list[list[str]] = field(default_factory=list)
    was_encrypted: list[bool] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - its name
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        self.rcpts.append(list(envelope.rcpt_tos))
        self.was_encrypted.append(server.transport.get_extra_info("ssl_object") is not None)
        return "250 taken"

    def authenticate(self, *arguments: Any) -> AuthResult:
        told = arguments[-1]
        assert isinstance(told, LoginPassword)
        is_known = told.password.decode() == self.password
        if is_known:
            self.logins.append(told.login.decode())
        return AuthResult(success=is_known, handled=False)


class _Controller(Controller):
    def _trigger_server(self) -> None:
        assert self.server is not None
        # What is asked next is the port that was given, and 0 is none.
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@contextmanager
def mail_receiver(
    folder: Path, *, password: str = PASSWORD, encryption: str = "starttls"
) -> Iterator[MailReceiver]:
    """Take mail on a free port, with the certificate of `certificate(folder)` or without any."""
    receiver = MailReceiver(password=password)
    context = None
    if encryption != "none":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(folder / "mail.pem")
    over_tls = encryption == "tls"
    controller = _Controller(
        receiver,
        hostname="127.0.0.1",
        port=0,
        ssl_context=context if over_tls else None,
        tls_context=None if over_tls else context,
        authenticator=receiver.authenticate,
        auth_require_tls=encryption == "starttls",
        ready_timeout=30.0,
    )
    controller.start()
    try:
        receiver.port = controller.port
        yield receiver
    finally:
        controller.stop()


def certificate(folder: Path) -> Path:
    """Write a key and its certificate for 127.0.0.1, and return the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail of a test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "mail.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file
