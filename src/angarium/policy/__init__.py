"""For hook files: what hooks are told, and what they may answer.

    from angarium.policy import Accept, Rcpt, Reject

    async def on_rcpt(rcpt: Rcpt) -> Accept | Reject | None: ...
"""

from angarium.policy.arguments import Client, Credentials, Mail, Message, Outcome, Rcpt, Recipient
from angarium.policy.decisions import Accept, Decision, Defer, Discard, Redirect, Reject
from angarium.policy.header import AddField, Field, Header, RemoveField, ReplaceField

__all__ = [
    "Accept", "AddField", "Client", "Credentials", "Decision", "Defer", "Discard", "Field", "Header", "Mail", "Message",
    "Outcome", "Rcpt", "Recipient", "Redirect", "Reject", "RemoveField", "ReplaceField",
]  # fmt: skip
