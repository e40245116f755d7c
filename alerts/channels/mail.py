"""The channel that is a mail, as text and as a page."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import format_datetime
from enum import StrEnum
from html import escape
from typing import Final

from alerts.channels.channel import TIMEOUT_SECONDS, ChannelFailed
from bandit.core.notices import Notice

_HOST_NAME: Final = "[127.0.0.1]"  # as smtplib says it itself, without asking a name server


class MailSecurity(StrEnum):
    """How the connection to the mail server is encrypted."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"

    @property
    def port(self) -> int:
        """The port that goes with it."""
        return {MailSecurity.STARTTLS: 587, MailSecurity.TLS: 465, MailSecurity.NONE: 25}[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class Enclosure:
    """What a mail has in place of its notice's few lines: a text, and a page with pictures.

    `pictures` are PNG files by their Content-ID; the page shows each as `cid:` and that.
    """

    text: str
    page: str
    pictures: Mapping[str, bytes]


Enclosing = Callable[[Notice], Enclosure | None]
"""Returns what goes with a notice; None where the notice says it all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MailChannel:
    """Sends a mail to everybody at once; a password goes over an encrypted connection only."""

    server: str
    sender: str
    recipients: tuple[str, ...]
    security: MailSecurity = MailSecurity.STARTTLS
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    enclosing: Enclosing | None = None

    def send(self, notice: Notice, *, key: str) -> None:
        """Deliver to the mail server, which has taken it for at least one of the recipients."""
        if self.login is not None and self.security is MailSecurity.NONE:
            raise ChannelFailed("a login needs an encrypted connection")
        enclosed = None if self.enclosing is None else self.enclosing(notice)
        mail = mail_of(notice, key, self.sender, self.recipients, enclosed=enclosed)
        try:
            with self._connected() as smtp:
                if self.login is not None:
                    smtp.login(self.login, self.password or "")
                smtp.send_message(mail)
        except smtplib.SMTPResponseException as error:
            # `from None`: a server may quote what it was given.
            raise ChannelFailed(f"the mail server answered {error.smtp_code}") from None
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise ChannelFailed(f"no mail: {type(error).__name__}") from None

    def _connected(self) -> smtplib.SMTP:
        host, _, port = self.server.partition(":")
        at = int(port) if port else self.security.port
        if self.security is MailSecurity.TLS:
            return smtplib.SMTP_SSL(
                host,
                at,
                local_hostname=_HOST_NAME,
                timeout=TIMEOUT_SECONDS,
                context=ssl.create_default_context(),
            )
        smtp = smtplib.SMTP(host, at, local_hostname=_HOST_NAME, timeout=TIMEOUT_SECONDS)
        try:
            if self.security is MailSecurity.STARTTLS:
                smtp.starttls(context=ssl.create_default_context())
        except BaseException:
            smtp.close()
            raise
        return smtp


def mail_of(
    notice: Notice,
    key: str,
    sender: str,
    recipients: tuple[str, ...],
    *,
    enclosed: Enclosure | None = None,
) -> EmailMessage:
    """Return the mail; sent twice, it is the same message for whoever reads it."""
    mail = EmailMessage()
    mail["Subject"] = f"[{notice.severity.value.upper()}] {notice.kind.value}: {notice.title}"
    mail["From"] = sender
    mail["To"] = ", ".join(recipients)
    mail["Date"] = format_datetime(notice.at)
    mail["Message-ID"] = f"<{key}@liveops-bandit>"
    mail["Auto-Submitted"] = "auto-generated"
    if enclosed is not None:
        mail.set_content(enclosed.text)
        mail.add_alternative(enclosed.page, subtype="html")
        page = mail.get_body(("html",))
        assert isinstance(page, EmailMessage)
        for cid, picture in enclosed.pictures.items():
            page.add_related(
                picture, "image", "png", cid=f"<{cid}>", disposition="inline", filename=f"{cid}.png"
            )
        return mail
    lines = [notice.title, "", notice.text, ""]
    lines += [f"{name}: {value}" for name, value in notice.fields]
    mail.set_content("\n".join([*lines, f"at: {notice.at.isoformat()}"]))
    mail.add_alternative(_page(notice), subtype="html")
    return mail


def _page(notice: Notice) -> str:
    rows = [*notice.fields, ("at", notice.at.isoformat())]
    cells = "".join(
        f"<tr><th align=left>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in rows
    )
    return (
        f'<h2 style="color:#{notice.severity.colour:06x}">{escape(notice.kind.value)}</h2>'
        f"<p><b>{escape(notice.title)}</b></p><p>{escape(notice.text)}</p><table>{cells}</table>"
    )
