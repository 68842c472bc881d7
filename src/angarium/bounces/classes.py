"""The classes of failures: what a sender is to make of a reply, whatever code and words it came with.

The names are in the log, in metrics and in the operator's rules: they stay as they are. Which reply belongs to which
class is said by rule files (rules.py), never here.
"""

from __future__ import annotations

from typing import Final

# The name of each class, and what it means for who sends.
CLASSES: Final[dict[str, str]] = {
    # The address
    "bad-mailbox": "Nobody of that name has a mailbox there.",
    "bad-domain": "The recipient's domain does not exist or takes no mail.",
    "bad-address": "The address is not written as an address is.",
    "inactive-mailbox": "The mailbox exists and is closed, disabled or unused.",
    "moved-mailbox": "The recipient has another address now, or the address another owner.",
    "mailbox-full": "The mailbox has no room.",
    "mailbox-trouble": "The mailbox cannot be written to now, no more is said.",
    "not-allowed": "The recipient takes no mail from this sender: a closed list, a recipient that blocks.",
    "bad-sender": "The reverse-path is refused: it does not exist or takes no mail itself.",
    # The message
    "message-too-large": "The message is larger than the host or the mailbox takes.",
    "bad-content": "The message is malformed, or has an attachment or a header field that is not taken.",
    "spam-content": "The message looks like spam.",
    "virus": "The message has malware in it, or is held for phishing.",
    "unsupported": "The host cannot do what the message needs: 8BITMIME, SMTPUTF8, REQUIRETLS.",
    # Who sends
    "spam-source": "The sending host is on a list of hosts that send spam.",
    "bad-reputation": "The sending host or domain has too bad a reputation, or too many complaints.",
    "sender-dns": "Names of the sending host do not match its address, or it has none.",
    "authentication-failed": "SPF, DKIM, DMARC or ARC does not hold.",
    "rate-limited": "More mail or more connections than the host takes in a time.",
    "too-many-recipients": "More recipients in one transaction than the host takes.",
    "greylisted": "To be tried again in some minutes.",
    "relaying-denied": "The host does not take mail for this domain from us.",
    "login-required": "The host wants AUTH, or does not accept ours.",
    "policy": "Refused by a rule of the host that it does not explain.",
    "unsubscribed": "The recipient asked for no more of this mail.",
    "complaint": "The recipient has called the message spam (a feedback report).",
    "suppressed": "Not tried: the address is on the suppression list.",
    # The way
    "routing-error": "No way to the host: a loop, too many hops, no route.",
    "dns-failure": "Name servers do not answer, or not usably.",
    "connection-refused": "No host of the site takes connections.",
    "connection-failed": "Connecting took too long, or the connection was lost.",
    "tls-failure": "TLS is needed and did not come about.",
    "protocol-error": "One side did not understand what the other said.",
    "host-unavailable": "The host takes no mail now: closing, busy, under maintenance.",
    "system-full": "The host has no room on its disks.",
    "system-trouble": "Something is wrong inside the host.",
    "expired": "Given up for age.",
    # No rule
    "unclassified": "No rule knows what the reply means.",
}

UNCLASSIFIED: Final = "unclassified"
SUPPRESSED: Final = "suppressed"
COMPLAINT: Final = "complaint"

PHASES: Final = (
    "route", "connect", "greeting", "ehlo", "starttls", "tls", "auth", "mail", "rcpt", "data", "end", "rset", "idle",
    "report", "order",
)  # fmt: skip
"""Where a failure met us. "route": before any connection. "report": read out of a report of somebody else. "order": the
operator's, with no peer concerned."""
