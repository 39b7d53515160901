"""Mail through a real SMTP server, which does what such servers do: refuse at first, refuse for good, and hang up.

1.  It puts off whoever it has not met: 451, come back later. The job fails, and is tried again by itself.
2.  It has no such mailbox: 550. Trying again would not help, so the job is a dead letter at once. When the mailbox has
    been made, it is requeued.
3.  It takes a mail, and the line is cut before it has said so. Nobody can know then whether it was taken, so it is sent
    again. Both carry the same Message-ID, made from the job's id, by which the mailbox drops the second.

One thing does not happen: the same receipt asked for twice is one job, by its idempotency key. Needs aiosmtpd.

(A file named `email.py` would hide Python's own `email` from all programs in this folder.)
"""

import asyncio
import smtplib
from collections import Counter
from contextlib import nullcontext
from datetime import timedelta
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from aiosmtpd.smtp import SMTP, Envelope, Session

from taskharbor import Context, Harbor, JobFailed, JobHandle, Retry, task

PATIENCE = timedelta(seconds=30)


class Relay(msgspec.Struct, frozen=True):
    """Where mail is handed in."""

    host: str
    port: int


class PutOffError(Exception):
    """The server answered with a code below 500: later, the same mail may be taken."""


class RefusedForGoodError(Exception):
    """The server answered with a code from 500 on: the same mail will be refused again."""


# The wait is short, so that this program ends soon; a server that puts you off means minutes.
@task(
    retry=Retry(max_attempts=6, base=timedelta(milliseconds=20), on={RefusedForGoodError: Retry.never}),
    timeout=timedelta(seconds=20),
)
def send_mail(ctx: Context[Relay], to: str, subject: str, body: str) -> str:
    """Send one mail and return its Message-ID. smtplib blocks, so this is a `def`, which runs in a thread."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "shop@example.org", to, subject
    # The same in every attempt: a mail sent twice can be told from two mails.
    message_id = f"<{ctx.job_id}@example.org>"
    mail["Message-ID"] = message_id
    mail.set_content(body)
    try:
        with smtplib.SMTP(ctx.deps.host, ctx.deps.port, local_hostname="localhost", timeout=10) as smtp:
            smtp.send_message(mail)
    except (smtplib.SMTPRecipientsRefused, smtplib.SMTPResponseException) as error:
        raise refusal(error, to) from None
    # Whatever else is raised, such as a cut line, is tried again: that is the rule of the task's `Retry`.
    return message_id


def refusal(error: smtplib.SMTPRecipientsRefused | smtplib.SMTPResponseException, to: str) -> Exception:
    """Return what a server's refusal means to the job. Codes from 500 on are for good (RFC 5321, 4.2.1)."""
    code: int
    answer: bytes | str
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code, answer = error.recipients[to]
    else:
        code, answer = error.smtp_code, error.smtp_error
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else answer
    return (RefusedForGoodError if code >= 500 else PutOffError)(f"{code} {text}")


class Mailboxes:
    """What the server does with mail. aiosmtpd calls its methods as the client goes on."""

    def __init__(self) -> None:
        self.met: set[str] = set()
        self.unknown = {"mary@example.org"}
        self.cut_off = {"grace@example.org"}
        self.mails: dict[str, str] = {}
        """Subjects by Message-ID."""
        self.deliveries: Counter[str] = Counter()

    async def handle_RCPT(  # noqa: N802 - so aiosmtpd calls it
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Accept a recipient, or not."""
        if address in self.unknown:
            return "550 5.1.1 no such mailbox"
        if address not in self.met:
            self.met.add(address)
            return "451 4.7.1 come back later"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep a mail, if it is not here already."""
        content = envelope.content
        mail = BytesParser().parsebytes(content if isinstance(content, bytes) else b"")
        self.deliveries[mail["Message-ID"]] += 1
        self.mails[mail["Message-ID"]] = mail["Subject"]
        if mail["To"] in self.cut_off:
            self.cut_off.remove(mail["To"])
            assert isinstance(server.transport, asyncio.WriteTransport)
            server.transport.abort()
        return "250 2.0.0 kept"


async def main(folder: Path) -> None:
    """Send four mails, of which one is asked for twice, and say what became of them."""
    mailboxes = Mailboxes()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(mailboxes, hostname="localhost", loop=loop), "127.0.0.1", 0
    )
    relay = Relay(*server.sockets[0].getsockname()[:2])
    async with (
        server,
        Harbor(f"sqlite:///{folder / 'jobs.db'}", deps=lambda: nullcontext(relay)) as harbor,
        harbor.worker(concurrency=4),
    ):
        receipt = send_mail.options(key="receipt-17")
        jobs = [
            await receipt.aenqueue("ada@example.org", "Receipt 17", "12.50 paid"),
            await send_mail.aenqueue("grace@example.org", "Welcome", "We are glad you are here."),
            await send_mail.aenqueue("mary@example.org", "Invitation", "Tuesday at eight?"),
        ]
        again = await receipt.aenqueue("ada@example.org", "Receipt 17", "12.50 paid")
        print(f"asked for again: {'another job' if again.created else 'the same job'}")

        for job in jobs:
            await tell(job)

        mailboxes.unknown.clear()
        print(
            "mary has a mailbox now:",
            *await harbor.jobs.arequeue([jobs[2].id], reason="the mailbox was made"),
        )
        await tell(jobs[2])

    twice = sum(count - 1 for count in mailboxes.deliveries.values())
    print(f"kept: {', '.join(sorted(mailboxes.mails.values()))}; sent twice and dropped: {twice}")


async def tell(job: JobHandle[str]) -> None:
    """Wait for a job's end, and print how it went."""
    try:
        await job.aresult(timeout=PATIENCE)
        end = "sent"
    except JobFailed as error:
        end = f"a dead letter: {error.error_message}"
    status = await job.astatus()
    print(f"{end}, at attempt {status.attempt}, after {[error.message for error in status.errors]}")


if __name__ == "__main__":
    with TemporaryDirectory() as place:
        asyncio.run(main(Path(place)))
