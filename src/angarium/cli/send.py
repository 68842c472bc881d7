"""`angarium send`: one message from a file or stdin to an SMTP server, through Python's smtplib."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any, Final

from angarium.model.errors import AngariumError
from angarium.model.printable import printable

_QUOTED: Final = re.compile(r'^"(?:[^"\\]|\\.)*"')


class NotSent(AngariumError):
    """The server did not take it; the text is its reply."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "send",
        help="send one message",
        description="Sends one message: a whole one (header and body) from FILE or stdin, or a small one\n"
        "made from --subject and --body. Exit status 1: the server refused some recipients; 2: all.",
        epilog="examples:\n"
        "  angarium send --server 127.0.0.1:2525 --to you@localhost --subject hello --body 'first message'\n"
        "  angarium send --from me@example.net --to you@example.org message.eml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="the message; without it stdin, unless --body is given"
    )
    parser.add_argument(
        "--server", default="127.0.0.1:2525", metavar="HOST:PORT", help="default: %(default)s"
    )
    parser.add_argument(
        "--from",
        dest="reverse_path",
        metavar="MAILBOX",
        type=_reverse_path,
        help='reverse-path; default: this user; "<>": the null one',
    )
    parser.add_argument(
        "--to",
        dest="forward_paths",
        action="append",
        required=True,
        metavar="MAILBOX",
        type=_mailbox,
        help="may be given several times",
    )
    parser.add_argument("--subject", metavar="TEXT", help="of the message made here")
    parser.add_argument("--body", metavar="TEXT", help="make a message with this text")
    parser.add_argument("--quiet", action="store_true", help="print nothing when it was taken")


def _mailbox(text: str) -> str:
    """What smtplib would send as it stands. Whether it is one for the server, the server says."""
    if not text or not text.isprintable() or set(_QUOTED.sub("", text)) & set('<> "'):
        raise argparse.ArgumentTypeError(f"{text!r} is not a mailbox such as bob@example.com")
    return text


def _reverse_path(text: str) -> str:
    return text if text == "<>" else _mailbox(text)


def run(args: argparse.Namespace) -> int:
    import smtplib

    host, port = _server(args.server)
    reverse_path = args.reverse_path or _this_user()
    message = _message(args, reverse_path)
    options = []
    try:
        with smtplib.SMTP(host, port, timeout=60) as smtp:
            smtp.ehlo_or_helo_if_needed()
            if smtp.has_extn("8bitmime") and not message.isascii():
                options.append("BODY=8BITMIME")
            if smtp.has_extn("smtputf8") and not "".join([reverse_path, *args.forward_paths]).isascii():
                options.append("SMTPUTF8")
            reply, refused = _transact(smtp, reverse_path, args.forward_paths, message, options)
    except smtplib.SMTPException as error:
        raise NotSent(f"{args.server}: {_reply_of(error)}") from None
    except OSError as error:
        raise NotSent(f"{args.server}: {error.strerror or error}") from None
    except ValueError as error:
        # smtplib refuses line ends in addresses; octets that are not UTF-8 cannot be sent.
        raise NotSent(f"an address cannot be sent: {error}") from None
    for mailbox, text in refused.items():
        print(f"angarium: {printable(f'{mailbox}: {text}')}", file=sys.stderr)
    if not args.quiet:
        print(printable(reply))
    return 1 if refused else 0


def _transact(
    smtp: Any, reverse_path: str, forward_paths: list[str], message: bytes, options: list[str]
) -> tuple[str, dict[str, str]]:
    """smtplib's sendmail() keeps the reply to the end of data to itself; the queue id is in it."""
    import smtplib

    _expect(smtp.mail(reverse_path, options))
    refused = {}
    for mailbox in forward_paths:
        code, text = smtp.rcpt(mailbox)
        if code // 100 != 2:
            refused[mailbox] = _reply(code, text)
    if len(refused) == len(forward_paths):
        raise smtplib.SMTPException("; ".join(f"{mailbox}: {text}" for mailbox, text in refused.items()))
    return _expect(smtp.data(message)), refused


def _expect(reply: tuple[int, bytes]) -> str:
    import smtplib

    code, text = reply
    if code // 100 != 2:
        raise smtplib.SMTPResponseException(code, text)
    return _reply(code, text)


def _message(args: argparse.Namespace, reverse_path: str) -> bytes:
    """The octets to send, lines ended by CRLF."""
    if args.body is None and args.subject is None:
        if args.file is None:
            octets = sys.stdin.buffer.read()
        else:
            with open(args.file, "rb") as file:
                octets = file.read()
        return octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    if args.file is not None:
        raise NotSent("give either FILE or --subject and --body")
    from email import policy
    from email.message import EmailMessage
    from email.utils import formatdate, make_msgid

    message = EmailMessage(policy=policy.SMTP)
    try:
        message["From"] = reverse_path
        message["To"] = ", ".join(args.forward_paths)
        message["Subject"] = args.subject or ""
    except (ValueError, IndexError) as error:       # IndexError: the email package on "x@["
        raise NotSent(f"--from, --to or --subject cannot stand in a header: {error}") from None
    message["Date"] = formatdate(localtime=True)
    message["Message-ID"] = make_msgid(domain=reverse_path.rpartition("@")[2] or "localhost")
    try:
        message.set_content((args.body or "") + "\n")
        return message.as_bytes()
    except ValueError as error:
        raise NotSent(f"--body or a header cannot be sent: {error}") from None


def _server(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not text or (colon and not host):
        raise NotSent(f'--server: "{text}" is not HOST:PORT')
    if not colon:
        return text.strip("[]"), 25
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise NotSent(f'--server: "{text}" is not HOST:PORT')
    return host.strip("[]"), int(port)


def _this_user() -> str:
    import getpass
    import socket

    return f"{getpass.getuser()}@{socket.getfqdn()}"


def _reply_of(error: Exception) -> str:
    code = getattr(error, "smtp_code", None)
    text = getattr(error, "smtp_error", b"")
    return _reply(code, text) if code else str(error)


def _reply(code: int, text: bytes) -> str:
    """In one line."""
    return f"{code} {' '.join(text.decode(errors='replace').splitlines())}"
