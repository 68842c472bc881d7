"""What a failure means: for whom, for how long, and its enhanced status code when the peer gave none.

The only place that decides this (as Postfix src/smtp/smtp_trouble.c). Nothing is done here: connection and
pool act on the Judgement. Scopes, from small to large:

  RECIPIENT    this recipient alone; the transaction goes on.
  TRANSACTION  all recipients of the transaction that have no outcome yet.
  CONNECTION   the transaction as above, and the connection is of no use any more.
  HOST         no mail was tried: the next host of the site may take it (RFC 5321 §5.1).
  SITE         no host of the site can take it now.
"""

from __future__ import annotations

import enum
import errno
import os

import msgspec

from angarium.model.outcome import Trouble
from angarium.spool.unreadable import trouble_of_spool
from angarium.tls.report_outcome import ResultType, result_of_certificate


class Scope(enum.IntEnum):
    RECIPIENT = 0
    TRANSACTION = 1
    CONNECTION = 2
    HOST = 3
    SITE = 4


class Stage(enum.IntEnum):
    """The command a failure met; the numbers are those of smtp/client_session.pxd."""

    CONNECT = 0
    GREETING = 1
    EHLO = 2
    HELO = 3
    MAIL = 4
    RCPT = 5
    DATA = 6
    END = 7
    RSET = 8
    QUIT = 9
    IDLE = 10
    STARTTLS = 11
    HANDSHAKE = 12
    AUTH = 13


class Judgement(msgspec.Struct, frozen=True):
    """trouble: for the outcome. is_permanent: failed, not deferred. is_untried: given back, not counted.
    is_tls: it is TLS that failed; the host may do in clear. is_about_tls: and the host may do for other messages.
    is_refused_login: who we are is not believed, and will not be the next time either.
    tls_result: what the report of the day calls it (RFC 8460 §4.3); "": it is not about TLS.
    """

    scope: Scope
    is_permanent: bool
    trouble: Trouble
    is_untried: bool = False
    is_tls: bool = False
    is_about_tls: bool = False
    is_refused_login: bool = False
    tls_result: ResultType = ""


STAGE_TEXT = {
    Stage.CONNECT: "connecting",
    Stage.GREETING: "waiting for the greeting",
    Stage.EHLO: "saying EHLO",
    Stage.HELO: "saying HELO",
    Stage.MAIL: "MAIL",
    Stage.RCPT: "RCPT",
    Stage.DATA: "DATA",
    Stage.END: "end of data",
    Stage.RSET: "RSET",
    Stage.QUIT: "QUIT",
    Stage.IDLE: "idle",
    Stage.STARTTLS: "STARTTLS",
    Stage.HANDSHAKE: "the TLS handshake",
    Stage.AUTH: "AUTH",
}

# As rules for classes name them (bounces/classes.py).
PHASE = {
    Stage.CONNECT: "connect",
    Stage.GREETING: "greeting",
    Stage.EHLO: "ehlo",
    Stage.HELO: "ehlo",
    Stage.MAIL: "mail",
    Stage.RCPT: "rcpt",
    Stage.DATA: "data",
    Stage.END: "end",
    Stage.RSET: "rset",
    Stage.QUIT: "idle",
    Stage.IDLE: "idle",
    Stage.STARTTLS: "starttls",
    Stage.HANDSHAKE: "tls",
    Stage.AUTH: "auth",
}

# Before any mail: what goes wrong there is the host's.
_HELLO = (Stage.GREETING, Stage.EHLO, Stage.HELO, Stage.STARTTLS, Stage.HANDSHAKE, Stage.AUTH)

RECIPIENTS_LEAST = 100  # RFC 5321 §4.5.3.1.8

# (reply code, stage or None for any) -> subject and detail; the class is the code's. RFC 5248 §2.4 leaves
# most of this to judgement: only what the code itself says is claimed.
_SUBJECT_DETAIL: dict[tuple[int, Stage | None], tuple[int, int]] = {
    (421, None): (3, 2),  # not accepting messages now
    (450, Stage.RCPT): (2, 0),  # mailbox unavailable: some mailbox status
    (451, None): (3, 0),  # local error in processing: some system status
    (452, None): (3, 1),  # insufficient system storage
    (452, Stage.RCPT): (5, 3),  # RFC 5321 §4.5.3.1.10: too many recipients
    (500, None): (5, 2),
    (501, None): (5, 4),
    (502, None): (5, 1),
    (503, None): (5, 1),
    (504, None): (5, 4),
    (521, None): (3, 2),  # RFC 7504: host does not accept mail
    (530, None): (7, 0),
    (550, Stage.RCPT): (1, 0),  # mailbox unavailable: some address status (not always "does not exist")
    (551, Stage.RCPT): (1, 6),  # user not local: mailbox has moved
    (552, Stage.RCPT): (2, 2),  # exceeded storage allocation
    (552, None): (3, 4),  # message too big
    (553, None): (1, 3),  # mailbox name not allowed
    (555, None): (5, 4),  # parameters not recognised
    (556, None): (1, 10),  # RFC 7504: domain does not accept mail
}


def status_of(code: int, stage: Stage) -> tuple[int, int, int]:
    """The enhanced status code for a reply that brought none (RFC 3463)."""
    subject, detail = _SUBJECT_DETAIL.get((code, stage)) or _SUBJECT_DETAIL.get((code, None)) or (0, 0)
    return (code // 100, subject, detail)


def of_reply(
    stage: int,
    code: int,
    status: tuple[int, int, int],
    text: str,
    remote: str,
    *,
    accepted_count: int = 0,
    finished_count: int = 0,
    is_next_hop: bool = False,
) -> Judgement:
    """A refusal (4xx, 5xx) or 421 in answer to the command of `stage`.

    accepted_count  recipients of this transaction already accepted.
    finished_count  transactions that ended on this connection before.
    is_next_hop     the operator named the host, or we have authenticated there.
    """
    at = Stage(stage)
    has_own_status = status[0] == code // 100
    if not has_own_status:
        status = status_of(code, at)
    trouble = Trouble(code, status, text, remote, phase=PHASE[at])
    is_permanent = code >= 500
    if at in _HELLO:
        # A host that will not talk to us says nothing about the mail: even 554 is tried elsewhere and later
        # (RFC 5321 §5.1, RFC 7504 §4); a whole site that says so permanently is judged by of_site(). It has seen
        # nothing but our address and name: it may like those of another source better.
        trouble = msgspec.structs.replace(trouble, is_of_source=at not in (Stage.STARTTLS, Stage.HANDSHAKE, Stage.AUTH))
        return Judgement(Scope.HOST, is_permanent, trouble)
    if code == 421:
        # Closing down. With transactions behind it, the peer has had enough of the connection, not of this
        # mail; before end of data nothing of this one was tried.
        is_untried = at != Stage.END and finished_count > 0
        return Judgement(Scope.CONNECTION, False, trouble, is_untried)
    if at == Stage.RSET:
        # Said for the sake of the transaction before; behind a refusal nobody knows what a MAIL would belong to.
        trouble = msgspec.structs.replace(trouble, status=(4, *status[1:]))
        return Judgement(Scope.CONNECTION, False, trouble, is_untried=finished_count > 0)
    if code == 530 and is_next_hop:
        # RFC 4954 §6: "authentication required", which is the operator's to see to and no fault of the message.
        words = f"{text} (the host wants AUTH: see login in [[route]])"
        trouble = msgspec.structs.replace(trouble, status=(4, *status[1:]), text=words)
        return Judgement(Scope.TRANSACTION if at != Stage.RCPT else Scope.RECIPIENT, False, trouble)
    if at == Stage.MAIL and finished_count > 0 and (code == 503 or status[1:] == (5, 3)):
        # A command out of order, or too many of them, as the peer sees the connection: this mail was not looked at.
        return Judgement(Scope.CONNECTION, False, trouble, is_untried=True)
    if at == Stage.RCPT:
        is_too_many = _is_too_many(code, status, has_own_status, accepted_count)
        if is_too_many and accepted_count > 0:
            # RFC 5321 §4.5.3.1.10: the accepted ones go now, the rest in the next transaction;
            # 552 counts as 452 when its enhanced code says so.
            return Judgement(Scope.RECIPIENT, False, trouble, is_untried=True)
        return Judgement(Scope.RECIPIENT, is_permanent and not is_too_many, trouble)
    return Judgement(Scope.TRANSACTION, is_permanent, trouble)


def _is_too_many(code: int, status: tuple[int, int, int], has_own_status: bool, accepted_count: int) -> bool:
    """Whether a reply to RCPT is about how many there are, not about this one (RFC 5321 §4.5.3.1.10)."""
    if status[1:] == (5, 3):
        return True
    if code == 452:
        return not has_own_status or status[1] == 3         # 4.2.2 and the like are this mailbox's own
    # What RFC 821 had for it. A host must take a hundred (§4.5.3.1.8): before them it is the mailbox that is full.
    return code == 552 and not has_own_status and accepted_count >= RECIPIENTS_LEAST


def of_loss(
    stage: int, remote: str, reason: str, finished_count: int = 0, is_timeout: bool = False
) -> Judgement:
    """The connection ended, or went silent for too long, while the reply to `stage` was due."""
    at = Stage(stage)
    verb = "timed out" if is_timeout else "connection lost"
    text = f"{verb} at {STAGE_TEXT[at]}" + (f": {reason}" if reason else "")
    if at == Stage.CONNECT or at in _HELLO:
        trouble = Trouble(0, (4, 4, 1 if at == Stage.CONNECT else 2), text, remote, phase=PHASE[at])
        return Judgement(Scope.HOST, False, trouble)
    if at == Stage.END:
        # The peer may have the message or not (RFC 1047): only sending it again is safe.
        text += " (the message may have been received)"
    # A kept connection that the peer closed just as we came back: the mail was not looked at.
    is_untried = at in (Stage.MAIL, Stage.RSET, Stage.IDLE) and finished_count > 0 and not is_timeout
    return Judgement(Scope.CONNECTION, False, Trouble(0, (4, 4, 2), text, remote, phase=PHASE[at]), is_untried)


def of_protocol_error(stage: int, remote: str, reason: str) -> Judgement:
    """The peer said something that is not SMTP, or not in its turn."""
    at = Stage(stage)
    scope = Scope.HOST if at in _HELLO else Scope.CONNECTION
    text = f"protocol error at {STAGE_TEXT[at]}: {reason}"
    return Judgement(scope, False, Trouble(0, (4, 5, 0), text, remote, phase=PHASE[at]))


def of_connect(error: BaseException, remote: str) -> Judgement:
    """No connection to one address."""
    if isinstance(error, TimeoutError) and not error.errno:
        return Judgement(Scope.HOST, False, _at_connect((4, 4, 1), "connecting timed out", remote))
    number = getattr(error, "errno", None)
    if number in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL):
        # Ours, not the host's; the next host would meet the same.
        text = f"cannot open a connection: {os.strerror(number)}"
        return Judgement(Scope.SITE, False, _at_connect((4, 3, 0), text, remote))
    reason = os.strerror(number) if number else str(error) or type(error).__name__
    return Judgement(Scope.HOST, False, _at_connect((4, 4, 1), f"connection failed: {reason}", remote))


def _at_connect(
    status: tuple[int, int, int], text: str, remote: str = "", *, is_of_source: bool = False
) -> Trouble:
    return Trouble(0, status, text, remote, phase=PHASE[Stage.CONNECT], is_of_source=is_of_source)


def of_no_address(site: str, source: str, family: str = "") -> Judgement:
    """No host of the site has an address of the family of the egress source, or of the one that shaping insists on."""
    text = f"no address of {site} can be reached from source {source}" + (f" over {family} only" if family else "")
    return Judgement(Scope.SITE, False, _at_connect((4, 4, 4), text, is_of_source=True))


def of_source(source: str, reason: str) -> Judgement:
    """The egress source cannot be used, whatever the site: ours to put right (RFC 3463 §3.4: X.3.5)."""
    return Judgement(Scope.SITE, False, _at_connect((4, 3, 5), f"source {source} {reason}", is_of_source=True))


def of_loop(remote: str, hostname: str) -> Judgement:
    """The host greets with our own name: mail for it comes back to us (RFC 5321 §5.1, §6.3)."""
    trouble = Trouble(0, (5, 4, 6), f"mail loops back to {hostname}", remote, phase=PHASE[Stage.GREETING])
    return Judgement(Scope.SITE, True, trouble)


def of_shutdown(stage: int, remote: str) -> Judgement:
    """We end before the peer has answered. Only behind end of data may it have the message."""
    is_untried = Stage(stage) != Stage.END
    text = "shutting down before the reply to end of data (the message may have been received)"
    trouble = Trouble(0, (4, 4, 2), text, remote, phase=PHASE[Stage(stage)])
    return Judgement(Scope.CONNECTION, False, trouble, is_untried)


def of_site(judgements: list[Judgement]) -> Judgement:
    """All hosts of a site were tried. Permanent only when every one said so for good (521, RFC 7504 §4).

    Of several the text says so: one host that fails while another takes mail is no failure, and has no text at all.
    """
    last = judgements[-1]
    is_permanent = all(each.is_permanent and each.trouble.code in (0, 521, 556) for each in judgements)
    trouble = last.trouble
    if any(each.trouble.is_of_source for each in judgements):
        trouble = msgspec.structs.replace(trouble, is_of_source=True)
    if not is_permanent and trouble.status[0] == 5:
        trouble = msgspec.structs.replace(trouble, status=(4, *trouble.status[1:]))
    if len(judgements) > 1:
        text = f"all {len(judgements)} addresses failed, the last with: {trouble.text}"
        trouble = msgspec.structs.replace(trouble, text=text)
    return Judgement(Scope.SITE, is_permanent, trouble)


def of_handshake(remote: str, reason: str, *, is_requiretls: bool = False, is_certain: bool = False) -> Judgement:
    """TLS was begun and did not come about, or broke before the hello was over.

    is_certain  it would fail again (a certificate that is not good): then a message that requires TLS fails
                (RFC 8689 §4.2.1), where others wait.
    """
    is_permanent = is_requiretls and is_certain
    status = (5, 7, 10) if is_permanent else (4, 7, 5)
    trouble = Trouble(0, status, f"TLS handshake failed: {reason}", remote, phase=PHASE[Stage.HANDSHAKE])
    result: ResultType = result_of_certificate(reason) if is_certain else "validation-failure"
    return Judgement(Scope.HOST, is_permanent, trouble, is_tls=True, is_about_tls=True, tls_result=result)


def no_starttls(
    remote: str, *, is_requiretls: bool = False, refusal: str = "", is_temporary: bool = False
) -> Judgement:
    """TLS is needed, and the host does not offer it, or refuses STARTTLS with the words of `refusal`."""
    is_permanent = is_requiretls and not is_temporary
    text = "TLS is needed, and the host " + (f"refuses STARTTLS: {refusal}" if refusal else "does not offer STARTTLS")
    status = (5, 7, 10) if is_permanent else (4, 7, 4)
    trouble = Trouble(0, status, text, remote, phase=PHASE[Stage.STARTTLS])
    return Judgement(Scope.HOST, is_permanent, trouble, is_about_tls=True, tls_result="starttls-not-supported")


def no_requiretls(remote: str) -> Judgement:
    """RFC 8689 §4.2.1 (5): not to be given to a host that does not offer REQUIRETLS under verified TLS."""
    text = "the message requires TLS all the way, and the host does not offer REQUIRETLS"
    return Judgement(Scope.HOST, True, Trouble(0, (5, 7, 30), text, remote, phase=PHASE[Stage.EHLO]), is_about_tls=True)


def not_located(site: str) -> Judgement:
    """RFC 8689 §4.2.1 (2): whoever forges the answer to the MX look-up has a certificate for the names in it."""
    text = f"the message requires TLS all the way, and DNS does not vouch for the mail exchangers {site}"
    return Judgement(Scope.SITE, True, Trouble(0, (5, 7, 10), text), is_about_tls=True)


def unknown_tlsa(host: str, detail: str) -> Judgement:
    """RFC 7672 §2.1.2: a look-up that fails is what an attacker would bring about: the host counts as unreachable."""
    text = f"TLS policy of {host} from TLSA cannot be known: {detail}"
    return Judgement(Scope.HOST, False, Trouble(0, (4, 4, 3), text), is_about_tls=True, tls_result="dnssec-invalid")


def not_listed(host: str) -> Judgement:
    """RFC 8461 §5: the domain's policy does not name this mail exchanger. It may be about to be changed: mail waits."""
    text = f"TLS policy of the domain from MTA-STS does not name its mail exchanger {host}"
    return Judgement(
        Scope.HOST, False, Trouble(0, (4, 7, 5), text), is_about_tls=True, tls_result="validation-failure"
    )


# RFC 4954 §4 and §6: what a refusal of AUTH says besides "no", for the operator.
_OF_AUTH: dict[int, str] = {
    432: "the host asks for another password: log in there once by PLAIN under TLS, or set a new one",
    454: "the host cannot tell now",
    500: "the host does not know the command, or the line is too long for it",
    504: "the host does not do this mechanism after all",
    530: "the host wants something before AUTH",
    534: "the host finds the mechanism too weak",
    535: "the host does not accept user and password, or token",
    538: "the host does this mechanism under TLS only",
}
# Another host of the site, or a later try, may say something else.
_PASSING_AUTH = (454, 500, 501, 503, 504)


def of_auth(
    code: int, status: tuple[int, int, int], text: str, remote: str, *, login: str, mechanism: str
) -> Judgement:
    """A refusal of AUTH. Mail waits, whatever the code: it is for the operator to put right, and no message's fault."""
    is_refused = (code >= 500 and code not in _PASSING_AUTH) or code == 432
    subject_detail = status[1:] if status[0] == code // 100 else (7, 8) if is_refused else (7, 0)
    meaning = _OF_AUTH.get(code, "the host refuses AUTH")
    words = f"{_login_at(login, mechanism)}: {meaning}: {code} {text}"
    trouble = Trouble(code, (4, *subject_detail), words, remote, phase=PHASE[Stage.AUTH])
    scope = Scope.SITE if is_refused else Scope.HOST
    return Judgement(scope, False, trouble, is_refused_login=is_refused)


def of_auth_fault(reason: str, remote: str, login: str, mechanism: str) -> Judgement:
    """The host says something in AUTH that it must not say, or we cannot answer."""
    text = f"{_login_at(login, mechanism)}: {reason}"
    return Judgement(Scope.HOST, False, Trouble(0, (4, 7, 0), text, remote, phase=PHASE[Stage.AUTH]))


def no_mechanism(remote: str, login: str, offered: str, usable: str) -> Judgement:
    """AUTH is to be said, and cannot: mail never goes on without it."""
    offer = f"offers AUTH {offered}, and the login may use {usable}" if offered else "does not offer AUTH"
    text = f"login {login}: the host {offer}"
    return Judgement(Scope.HOST, False, Trouble(0, (4, 7, 0), text, remote, phase=PHASE[Stage.AUTH]))


def no_login(login: str, reason: str) -> Judgement:
    """We do not have what proves who we are."""
    text = f"login {login} cannot be used: {reason}"
    return Judgement(Scope.SITE, False, Trouble(0, (4, 3, 5), text, phase=PHASE[Stage.AUTH]))


def not_to_be_told(login: str, host: str) -> Judgement:
    """Whoever forges the answer to the MX look-up has a certificate for the names in it, and would learn who we are."""
    text = f"login {login}: DNS does not vouch for the mail exchanger {host}, nor does [login.{login}] hosts name it"
    return Judgement(Scope.HOST, False, Trouble(0, (4, 7, 0), text, phase=PHASE[Stage.AUTH]))


def _login_at(login: str, mechanism: str) -> str:
    return f"login {login} by AUTH {mechanism}"


def under_policy(judgement: Judgement, host: str, origin: str, name: str) -> Judgement:
    """The same, and whose word it was that TLS is needed."""
    text = f"{judgement.trouble.text} (TLS policy of {host} from {origin} says {name})"
    return msgspec.structs.replace(judgement, trouble=msgspec.structs.replace(judgement.trouble, text=text))


def no_material(reason: str) -> Judgement:
    """TLS is needed, and our own certificate or authorities cannot be read."""
    return Judgement(Scope.SITE, False, Trouble(0, (4, 3, 5), f"TLS is needed, and cannot be begun: {reason}"))


def of_spool(number: int) -> Judgement:
    """The message cannot be read back from the spool: never sent damaged, never given up for that."""
    return Judgement(Scope.TRANSACTION, False, trouble_of_spool(number))


def too_large(limit_octets: int, message_octets: int, remote: str) -> Judgement:
    """RFC 1870 §6.2: not offered to a host that has announced a smaller limit."""
    text = f"message of {message_octets} octets is larger than the {limit_octets} that the host announces"
    return Judgement(Scope.TRANSACTION, True, Trouble(0, (5, 3, 4), text, remote))


def needs_8bitmime(remote: str) -> Judgement:
    """RFC 6152 §3: declared 8-bit content, and no 8BITMIME there. Not converted: signatures would break."""
    return Judgement(Scope.TRANSACTION, True, Trouble(0, (5, 6, 3), "host does not offer 8BITMIME", remote))


def needs_binarymime(remote: str) -> Judgement:
    """RFC 3030 §3: BODY=BINARYMIME, and no BINARYMIME with CHUNKING there. Not converted: signatures would break."""
    text = "message is binary and the host does not offer BINARYMIME"
    return Judgement(Scope.TRANSACTION, True, Trouble(0, (5, 6, 1), text, remote))


def too_late(remote: str) -> Judgement:
    """RFC 2852 §4: by-mode R, and its by-time is over or closer than the host takes."""
    text = "not delivered by the time that its sender had set"
    return Judgement(Scope.TRANSACTION, True, Trouble(0, (5, 4, 7), text, remote))


def needs_deliverby(remote: str) -> Judgement:
    """RFC 2852 §4: by-mode R, and a host that would not return the message in time."""
    text = "host does not offer DELIVERBY, which its sender demands"
    return Judgement(Scope.TRANSACTION, True, Trouble(0, (5, 4, 7), text, remote))


def needs_smtputf8(remote: str) -> Judgement:
    """RFC 6531 §3.2: an address holds octets above 127, and no SMTPUTF8 there."""
    return Judgement(Scope.RECIPIENT, True, Trouble(0, (5, 6, 7), "host does not offer SMTPUTF8", remote))
