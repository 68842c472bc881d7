"""The dialogues of another server's tests (../shared/data/dialogs, chasquid's): alike where the RFCs bind.

Of a reply its code is compared, and where DIFFERENCES names the line, ours instead. They talk to a server
with SIZE of 1 MiB; where theirs is under TLS, ours offers AUTH.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from smtp.sasl_peer import SaslPeer
from smtp.server_dialogue import Dialogue
from smtp.test_transcripts import split_replies

from angarium.smtp.server_settings import ServerSettings

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "dialogs"
SETTINGS = ServerSettings("mx.test.example", max_message_octets=1 << 20)

# (dialogue, what the client said): our code, and why it is not theirs.
DIFFERENCES = {
    # AUTH is not offered: 502 (RFC 5321 §4.2.4) rather than 503.
    ("auth_not_tls", "AUTH PLAIN"): "502",
    # A mechanism that we do not know: 504 5.5.4 (RFC 4954 §4).
    ("auth_multi_dialog", "AUTH SOMETHINGE"): "504",
    # Three errors are not too many for us.
    ("auth_too_many_failures", "AUTH PLAIN some"): "501",
    # A message is text to a relay; they parse its header section.
    ("bad_data", "."): "250",
    # A message with a bad line ending: 554 at its true end, with the session usable; they close with 521.
    ("bad_data_dot", "xxx\r\n.\r\n"): "554",
    ("bad_data_dot_2", "\r\n.\r\n"): "554",
    ("bad_data_dot_on_message_too_big", "."): "554",
    # 501, a syntax error in parameters (RFC 5321 §4.2.4): the verb is known.
    ("bad_mail_from", "MAIL LALA: <>"): "501",
    ("bad_mail_from", "MAIL FROM:"): "501",
    ("bad_rcpt_to", "RCPT LALA: <>"): "501",
    ("bad_rcpt_to", "RCPT TO:"): "501",
    # UTF-8 without SMTPUTF8: 553 5.6.7 (RFC 6531 §3.5).
    ("bad_rcpt_to", "RCPT TO:<henryⅣ@testserver>"): "553",
    # Over-long line: 500 and the session goes on (RFC 5321 §4.5.3.1.4).
    ("line_too_long", "HELO aaaaaaaaa1"): "500",
}



@pytest.mark.skipif(not FOLDER.is_dir(), reason="../shared/data/dialogs is not there")
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.cmy")), ids=lambda path: path.stem)
def test_dialogue_of_another_server(path: Path) -> None:
    dialogue = Dialogue(SETTINGS)
    said = ""
    seen = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.split(" ", 2)
        if line.startswith(("c tcp_connect", "c tls_connect", "c close")):
            if "_connect" in line:
                dialogue = Dialogue(SETTINGS, sasl=SaslPeer(b"PLAIN") if "tls_connect" in line else None)
                dialogue.greet()
                seen = 0
        elif line.startswith("c ->"):
            said = words[2] if len(words) > 2 else ""
            if said == "RCPT TO: user@testserver":
                said = "RCPT TO: <user@testserver>"     # RFC 5321 §4.1.1.3 wants the brackets; so do we
            dialogue.feed(said.encode() + b"\r\n")
        elif line.startswith("c ~>"):
            said = evaluated(words[2])
            dialogue.feed(said.encode())
        elif line.startswith("c <"):
            replies = split_replies(dialogue.output)
            assert len(replies) > seen, f"no reply to {said!r}"
            ours, theirs = replies[seen][:3], words[2][:3]
            seen += 1
            key = next((key for key in DIFFERENCES if key[0] == path.stem and said[:15] == key[1][:15]), None)
            if key is not None and ours != theirs:
                assert ours == DIFFERENCES[key], f"after {said!r}"
            else:
                assert ours == theirs, f"after {said!r}"


def evaluated(expression: str) -> str:
    """A Python expression of string literals, `*` and `+`."""

    def value(node: ast.expr) -> str | int:
        match node:
            case ast.Constant(value=str() | int() as constant):
                return constant
            case ast.BinOp(op=ast.Mult()):
                return value(node.left) * value(node.right)  # type: ignore[operator]
            case ast.BinOp(op=ast.Add()):
                return value(node.left) + value(node.right)  # type: ignore[operator]
        raise ValueError(expression)

    result = value(ast.parse(expression.strip(), mode="eval").body)
    assert isinstance(result, str)
    return result
