"""E-mail over the organisation's own mail server, with text and HTML."""

from __future__ import annotations

import asyncio
import html
import ssl
import time
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

import aiosmtplib
import structlog

from accord.notifications.channels.message import Message, Receiver
from accord.notifications.domain.model import Outcome
from accord.notifications.domain.rendering import Notice, cut
from accord.settings import SmtpSettings

log = structlog.get_logger(__name__)

TIMEOUT_S = 50.0
"""For all of a message; less than a lease. A server may take its time to look at what it was given."""
COMMAND_TIMEOUT_S = 45.0
CONNECT_TIMEOUT_S = 20.0
HELD_S = 60.0
"""After a fault of our configuration no mail is tried for so long."""
NOTICES_MAX = 200
_SUBJECT_CHARS_MAX = 150
_ERROR_CHARS_MAX = 300
_PERMANENT = range(500, 600)


class EmailSender:
    """Hands messages to the mail server. What the server refuses because of us holds all mail, and kills none."""

    def __init__(self, settings: SmtpSettings) -> None:
        self._settings = settings
        self._held_until = 0.0
        self._held_because = ""
        self._context = ssl.create_default_context(cafile=settings.cafile)

    @property
    def held_because(self) -> str | None:
        """Why all mail is held, None if it is not."""
        return self._held_because if time.monotonic() < self._held_until else None

    async def send(self, message: Message, receiver: Receiver) -> Outcome:
        if (why := self.held_because) is not None:
            return Outcome(kind="held", error=why)
        outcome = await self._deliver(message, receiver)
        if outcome.kind == "held":
            self._held_until, self._held_because = time.monotonic() + HELD_S, outcome.error or ""
            log.error("mail_held", why=outcome.error, server=self._settings.host)
        return outcome

    async def _deliver(self, message: Message, receiver: Receiver) -> Outcome:
        settings = self._settings
        client = aiosmtplib.SMTP(
            hostname=settings.host,
            port=settings.port,
            use_tls=settings.security == "tls",
            start_tls=settings.security == "starttls",
            tls_context=None if settings.security == "none" else self._context,
            timeout=COMMAND_TIMEOUT_S,
        )
        body = build_email(message, receiver.address, settings.sender).as_bytes(policy=SMTP)
        step = "connect"
        try:
            async with asyncio.timeout(TIMEOUT_S):
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await client.connect()
                if settings.username is not None and settings.password is not None:
                    step = "auth"
                    await client.login(settings.username, settings.password.get_secret_value())
                step = "mail"
                await client.mail(settings.sender)
                step = "rcpt"
                await client.rcpt(receiver.address)
                step = "data"
                response = await client.data(body)
        except aiosmtplib.SMTPResponseException as error:
            return _of_response(step, error.code, error.message)
        except (aiosmtplib.SMTPException, TimeoutError, OSError) as error:
            return _of_connection(step, error)
        finally:
            client.close()
        return Outcome(kind="delivered", status=response.code, body=cut(response.message, _ERROR_CHARS_MAX))


def _of_response(step: str, code: int, text: str) -> Outcome:
    words = cut(f"the mail server answered {code} to {step}: {text}", _ERROR_CHARS_MAX)
    if code not in _PERMANENT:
        return Outcome(kind="failed", error=words, status=code)
    return Outcome(kind="refused" if step in ("rcpt", "data") else "held", error=words, status=code)


def _of_connection(step: str, error: Exception) -> Outcome:
    """What is not offered or not trusted is a matter of configuration; a server that is away, or goes away, is not."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Outcome(kind="held", error=f"the mail server's certificate is not valid: {cause.verify_message}")
        cause = cause.__cause__ or cause.__context__
    if type(error) in (aiosmtplib.SMTPException, aiosmtplib.SMTPNotSupported) and step in ("connect", "auth"):
        return Outcome(kind="held", error=f"the mail server does not offer what is required: {cut(str(error), 200)}")
    words = cut(
        f"the connection to the mail server was lost at {step}: {str(error) or type(error).__name__}", _ERROR_CHARS_MAX
    )
    if step == "data":
        return Outcome(kind="uncertain", error=f"{words}; the message may have arrived")
    return Outcome(kind="failed", error=words)


def build_email(message: Message, to: str, sender: str) -> EmailMessage:
    """The mail, the same with each attempt: its Message-ID is the notification's, so a mailbox can fold a repeated one."""
    mail = EmailMessage(policy=SMTP)
    mail["From"] = sender
    mail["To"] = to
    mail["Subject"] = cut(_one_line(f"Accord: {message.title}"), _SUBJECT_CHARS_MAX)
    mail["Date"] = format_datetime(message.created_at)
    mail["Message-ID"] = f"<{message.delivery_id}@{sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    shown = message.notices[:NOTICES_MAX]
    rest = f"and {message.total - len(shown)} more" if message.total > len(shown) else None
    mail.set_content("\n\n".join([*map(_as_text, shown), *([rest] if rest else [])]) + "\n")
    mail.add_alternative(
        "<!doctype html><html><body>"
        + "".join(map(_as_html, shown))
        + (f"<p>{rest}</p>" if rest else "")
        + "</body></html>\n",
        subtype="html",
    )
    return mail


def _as_text(notice: Notice) -> str:
    lines = [f"{label}: {value}" for label, value in notice.lines]
    return "\n".join([notice.title, *lines, *([notice.link] if notice.link else [])])


def _as_html(notice: Notice) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(label)}</td><td>{html.escape(value)}</td></tr>" for label, value in notice.lines
    )
    link = f'<p><a href="{html.escape(notice.link)}">Open in Accord</a></p>' if notice.link else ""
    return f"<h3>{html.escape(notice.title)}</h3><table>{rows}</table>{link}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
