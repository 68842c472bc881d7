"""What a failure means, as a table with a reason per row."""

from __future__ import annotations

import errno

import pytest

from angarium.model.outcome import Trouble
from angarium.outbound import trouble
from angarium.outbound.trouble import Judgement, Scope, Stage

REMOTE = "mx.example[192.0.2.1]:25"
NONE = (0, 0, 0)


# RFC 5321 §4.3.2 lists what a host may answer to each command; every code of it has its row, and so have those that
# RFC 4954, 3207, 7504 and 3463 add.
REPLIES = [
    # the greeting: a host that will not talk says nothing about the mail, the next one may (§5.1)
    (Stage.GREETING, 421, NONE, 0, 0, Scope.HOST, False, False, (4, 3, 2)),
    (Stage.GREETING, 450, NONE, 0, 0, Scope.HOST, False, False, (4, 0, 0)),
    (Stage.GREETING, 554, NONE, 0, 0, Scope.HOST, True, False, (5, 0, 0)),
    (Stage.GREETING, 521, NONE, 0, 0, Scope.HOST, True, False, (5, 3, 2)),  # RFC 7504 §3
    (Stage.GREETING, 556, NONE, 0, 0, Scope.HOST, True, False, (5, 1, 10)),
    # EHLO and HELO: those 5xx that are left when HELO, too, was refused
    (Stage.EHLO, 421, NONE, 0, 0, Scope.HOST, False, False, (4, 3, 2)),
    (Stage.EHLO, 450, NONE, 0, 0, Scope.HOST, False, False, (4, 0, 0)),
    (Stage.EHLO, 502, NONE, 0, 0, Scope.HOST, True, False, (5, 5, 1)),
    (Stage.EHLO, 504, NONE, 0, 0, Scope.HOST, True, False, (5, 5, 4)),
    (Stage.EHLO, 550, NONE, 0, 0, Scope.HOST, True, False, (5, 0, 0)),
    (Stage.HELO, 550, (5, 7, 1), 0, 0, Scope.HOST, True, False, (5, 7, 1)),
    (Stage.HELO, 554, NONE, 0, 0, Scope.HOST, True, False, (5, 0, 0)),
    # STARTTLS (RFC 3207 §4); 421 ends the connection before it
    (Stage.STARTTLS, 454, (4, 7, 0), 0, 0, Scope.HOST, False, False, (4, 7, 0)),
    (Stage.STARTTLS, 501, NONE, 0, 0, Scope.HOST, True, False, (5, 5, 4)),
    (Stage.STARTTLS, 421, NONE, 0, 0, Scope.HOST, False, False, (4, 3, 2)),
    # MAIL: all recipients of the transaction
    (Stage.MAIL, 451, NONE, 0, 0, Scope.TRANSACTION, False, False, (4, 3, 0)),
    (Stage.MAIL, 452, NONE, 0, 0, Scope.TRANSACTION, False, False, (4, 3, 1)),
    (Stage.MAIL, 455, NONE, 0, 0, Scope.TRANSACTION, False, False, (4, 0, 0)),
    (Stage.MAIL, 450, (4, 7, 1), 0, 0, Scope.TRANSACTION, False, False, (4, 7, 1)),
    (Stage.MAIL, 501, NONE, 0, 0, Scope.TRANSACTION, True, False, (5, 5, 4)),
    (Stage.MAIL, 530, NONE, 0, 0, Scope.TRANSACTION, True, False, (5, 7, 0)),  # RFC 4954 §6, RFC 3207 §4
    (Stage.MAIL, 550, (5, 7, 1), 0, 0, Scope.TRANSACTION, True, False, (5, 7, 1)),
    (Stage.MAIL, 552, NONE, 0, 0, Scope.TRANSACTION, True, False, (5, 3, 4)),
    (Stage.MAIL, 553, NONE, 0, 0, Scope.TRANSACTION, True, False, (5, 1, 3)),
    (Stage.MAIL, 555, NONE, 0, 0, Scope.TRANSACTION, True, False, (5, 5, 4)),
    (Stage.MAIL, 503, NONE, 0, 0, Scope.TRANSACTION, True, False, (5, 5, 1)),
    # ... but behind another transaction 503 is about the connection, and so is "too many" (RFC 9422 §4.1)
    (Stage.MAIL, 503, NONE, 0, 1, Scope.CONNECTION, False, True, (5, 5, 1)),
    (Stage.MAIL, 452, (4, 5, 3), 0, 1, Scope.CONNECTION, False, True, (4, 5, 3)),
    (Stage.MAIL, 452, (4, 5, 3), 0, 0, Scope.TRANSACTION, False, False, (4, 5, 3)),
    (Stage.MAIL, 452, NONE, 0, 1, Scope.TRANSACTION, False, False, (4, 3, 1)),
    # RCPT: this one alone
    (Stage.RCPT, 450, NONE, 0, 0, Scope.RECIPIENT, False, False, (4, 2, 0)),
    (Stage.RCPT, 451, NONE, 0, 0, Scope.RECIPIENT, False, False, (4, 3, 0)),
    (Stage.RCPT, 455, NONE, 0, 0, Scope.RECIPIENT, False, False, (4, 0, 0)),
    (Stage.RCPT, 501, NONE, 0, 0, Scope.RECIPIENT, True, False, (5, 5, 4)),
    (Stage.RCPT, 503, NONE, 0, 0, Scope.RECIPIENT, True, False, (5, 5, 1)),
    (Stage.RCPT, 550, NONE, 0, 0, Scope.RECIPIENT, True, False, (5, 1, 0)),
    (Stage.RCPT, 551, NONE, 0, 0, Scope.RECIPIENT, True, False, (5, 1, 6)),
    (Stage.RCPT, 552, NONE, 0, 0, Scope.RECIPIENT, True, False, (5, 2, 2)),
    (Stage.RCPT, 553, NONE, 0, 0, Scope.RECIPIENT, True, False, (5, 1, 3)),
    (Stage.RCPT, 554, NONE, 0, 0, Scope.RECIPIENT, True, False, (5, 0, 0)),
    (Stage.RCPT, 555, NONE, 0, 0, Scope.RECIPIENT, True, False, (5, 5, 4)),
    (Stage.RCPT, 556, NONE, 0, 0, Scope.RECIPIENT, True, False, (5, 1, 10)),  # RFC 7504 §4
    # the peer's own enhanced code stands
    (Stage.RCPT, 550, (5, 1, 1), 0, 0, Scope.RECIPIENT, True, False, (5, 1, 1)),
    # ... unless its class contradicts the code (RFC 3463 §2: the class follows the code)
    (Stage.RCPT, 450, (5, 1, 1), 0, 0, Scope.RECIPIENT, False, False, (4, 2, 0)),
    # §4.5.3.1.10: too many recipients; the rest was not tried
    (Stage.RCPT, 452, NONE, 3, 0, Scope.RECIPIENT, False, True, (4, 5, 3)),
    (Stage.RCPT, 452, (4, 5, 3), 3, 0, Scope.RECIPIENT, False, True, (4, 5, 3)),
    (Stage.RCPT, 452, (4, 3, 1), 3, 0, Scope.RECIPIENT, False, True, (4, 3, 1)),
    (Stage.RCPT, 450, (4, 5, 3), 3, 0, Scope.RECIPIENT, False, True, (4, 5, 3)),
    (Stage.RCPT, 552, (5, 5, 3), 3, 0, Scope.RECIPIENT, False, True, (5, 5, 3)),
    (Stage.RCPT, 552, NONE, 100, 0, Scope.RECIPIENT, False, True, (5, 2, 2)),  # RFC 821's code for it
    (Stage.RCPT, 552, NONE, 99, 0, Scope.RECIPIENT, True, False, (5, 2, 2)),  # a hundred are due: it is the mailbox
    (Stage.RCPT, 552, (5, 2, 2), 100, 0, Scope.RECIPIENT, True, False, (5, 2, 2)),
    (Stage.RCPT, 452, (4, 2, 2), 3, 0, Scope.RECIPIENT, False, False, (4, 2, 2)),  # this mailbox is full
    # ... but when none was accepted, trying again at once would go round in circles
    (Stage.RCPT, 452, NONE, 0, 0, Scope.RECIPIENT, False, False, (4, 5, 3)),
    (Stage.RCPT, 552, (5, 5, 3), 0, 0, Scope.RECIPIENT, False, False, (5, 5, 3)),
    # DATA
    (Stage.DATA, 450, NONE, 1, 0, Scope.TRANSACTION, False, False, (4, 0, 0)),
    (Stage.DATA, 451, NONE, 1, 0, Scope.TRANSACTION, False, False, (4, 3, 0)),
    (Stage.DATA, 452, NONE, 1, 0, Scope.TRANSACTION, False, False, (4, 3, 1)),
    (Stage.DATA, 503, NONE, 1, 0, Scope.TRANSACTION, True, False, (5, 5, 1)),
    (Stage.DATA, 550, NONE, 1, 0, Scope.TRANSACTION, True, False, (5, 0, 0)),
    (Stage.DATA, 552, NONE, 1, 0, Scope.TRANSACTION, True, False, (5, 3, 4)),
    (Stage.DATA, 554, NONE, 1, 0, Scope.TRANSACTION, True, False, (5, 0, 0)),
    # RSET: it is of the transaction before, and only the connection is of no more use
    (Stage.RSET, 451, NONE, 0, 1, Scope.CONNECTION, False, True, (4, 3, 0)),
    (Stage.RSET, 502, NONE, 0, 1, Scope.CONNECTION, False, True, (4, 5, 1)),
    (Stage.RSET, 530, NONE, 0, 1, Scope.CONNECTION, False, True, (4, 7, 0)),
    # end of data
    (Stage.END, 450, NONE, 1, 0, Scope.TRANSACTION, False, False, (4, 0, 0)),
    (Stage.END, 451, NONE, 1, 0, Scope.TRANSACTION, False, False, (4, 3, 0)),
    (Stage.END, 452, NONE, 1, 0, Scope.TRANSACTION, False, False, (4, 3, 1)),
    (Stage.END, 550, (5, 7, 1), 1, 0, Scope.TRANSACTION, True, False, (5, 7, 1)),
    (Stage.END, 552, NONE, 1, 0, Scope.TRANSACTION, True, False, (5, 3, 4)),
    (Stage.END, 554, NONE, 1, 0, Scope.TRANSACTION, True, False, (5, 0, 0)),
    (Stage.END, 599, NONE, 1, 0, Scope.TRANSACTION, True, False, (5, 0, 0)),
    # 421 on a connection that has served: enough of the connection, not of this mail (§3.8)
    (Stage.MAIL, 421, NONE, 0, 5, Scope.CONNECTION, False, True, (4, 3, 2)),
    (Stage.RCPT, 421, NONE, 0, 5, Scope.CONNECTION, False, True, (4, 3, 2)),
    (Stage.DATA, 421, NONE, 1, 5, Scope.CONNECTION, False, True, (4, 3, 2)),
    (Stage.RSET, 421, NONE, 0, 5, Scope.CONNECTION, False, True, (4, 3, 2)),
    (Stage.IDLE, 421, NONE, 0, 5, Scope.CONNECTION, False, True, (4, 3, 2)),
    # ... on a fresh one it is about now
    (Stage.MAIL, 421, NONE, 0, 0, Scope.CONNECTION, False, False, (4, 3, 2)),
    (Stage.RCPT, 421, NONE, 0, 0, Scope.CONNECTION, False, False, (4, 3, 2)),
    (Stage.DATA, 421, NONE, 1, 0, Scope.CONNECTION, False, False, (4, 3, 2)),
    # ... behind the data it is the reply to the message
    (Stage.END, 421, NONE, 1, 5, Scope.CONNECTION, False, False, (4, 3, 2)),
]


@pytest.mark.parametrize(
    ("stage", "code", "status", "accepted", "finished", "scope", "is_permanent", "is_untried", "told"), REPLIES
)
def test_replies(
    *,
    stage: Stage,
    code: int,
    status: tuple[int, int, int],
    accepted: int,
    finished: int,
    scope: Scope,
    is_permanent: bool,
    is_untried: bool,
    told: tuple[int, int, int],
) -> None:
    judgement = trouble.of_reply(
        stage, code, status, "text", REMOTE, accepted_count=accepted, finished_count=finished
    )
    # Who turns us away before any mail has seen nothing but our address and name: another source may do better.
    # Who cannot do TLS just now cannot do it with another either.
    is_of_source = scope == Scope.HOST and stage != Stage.STARTTLS
    said = Trouble(code, told, "text", REMOTE, phase=trouble.PHASE[stage], is_of_source=is_of_source)
    assert judgement == Judgement(scope, is_permanent, said, is_untried)


def test_whatever_is_answered_whenever_there_is_a_judgement_that_fits_its_code() -> None:
    for stage in Stage:
        for code in range(400, 600):
            for accepted, finished in ((0, 0), (1, 0), (0, 1), (200, 1)):
                judgement = trouble.of_reply(
                    stage, code, NONE, "", REMOTE, accepted_count=accepted, finished_count=finished
                )
                assert not (judgement.is_permanent and code < 500)
                assert not (judgement.is_permanent and judgement.is_untried)
                # untried goes back at once: only of a connection that has served, or behind others' acceptance
                assert not judgement.is_untried or accepted or finished


@pytest.mark.parametrize(
    ("stage", "finished", "is_timeout", "scope", "is_untried", "status"),
    [
        (Stage.GREETING, 0, False, Scope.HOST, False, (4, 4, 2)),
        (Stage.CONNECT, 0, True, Scope.HOST, False, (4, 4, 1)),
        (Stage.EHLO, 0, True, Scope.HOST, False, (4, 4, 2)),
        (Stage.HELO, 0, False, Scope.HOST, False, (4, 4, 2)),
        (Stage.STARTTLS, 0, False, Scope.HOST, False, (4, 4, 2)),
        (Stage.HANDSHAKE, 0, True, Scope.HOST, False, (4, 4, 2)),
        (Stage.RSET, 1, False, Scope.CONNECTION, True, (4, 4, 2)),
        (Stage.IDLE, 1, False, Scope.CONNECTION, True, (4, 4, 2)),
        (Stage.DATA, 1, False, Scope.CONNECTION, False, (4, 4, 2)),
        (Stage.QUIT, 1, False, Scope.CONNECTION, False, (4, 4, 2)),
        (Stage.MAIL, 0, False, Scope.CONNECTION, False, (4, 4, 2)),
        (
            Stage.MAIL,
            1,
            False,
            Scope.CONNECTION,
            True,
            (4, 4, 2),
        ),  # a kept connection had died: nothing was looked at
        (
            Stage.MAIL,
            1,
            True,
            Scope.CONNECTION,
            False,
            (4, 4, 2),
        ),  # but a peer that is silent now had its chance
        (Stage.RCPT, 1, False, Scope.CONNECTION, False, (4, 4, 2)),
        (Stage.END, 1, False, Scope.CONNECTION, False, (4, 4, 2)),
    ],
)
def test_losses(
    *,
    stage: Stage,
    finished: int,
    is_timeout: bool,
    scope: Scope,
    is_untried: bool,
    status: tuple[int, int, int],
) -> None:
    judgement = trouble.of_loss(stage, REMOTE, "", finished, is_timeout)
    assert (judgement.scope, judgement.is_untried, judgement.trouble.status) == (scope, is_untried, status)
    assert not judgement.is_permanent


def test_a_loss_behind_the_data_says_that_a_duplicate_is_possible() -> None:
    """RFC 5321 §4.5.3.2.6, RFC 1047."""
    assert "may have been received" in trouble.of_loss(Stage.END, REMOTE, "").trouble.text
    assert "may have been received" not in trouble.of_loss(Stage.DATA, REMOTE, "").trouble.text


@pytest.mark.parametrize(
    ("error", "scope", "status"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), Scope.HOST, (4, 4, 1)),
        (OSError(errno.EHOSTUNREACH, "x"), Scope.HOST, (4, 4, 1)),
        (TimeoutError(), Scope.HOST, (4, 4, 1)),
        (
            OSError(errno.EMFILE, "x"),
            Scope.SITE,
            (4, 3, 0),
        ),  # our own shortage: the next host would meet it too
        (OSError(errno.EADDRNOTAVAIL, "x"), Scope.SITE, (4, 3, 0)),  # source address not on this machine
    ],
)
def test_connecting(error: OSError, scope: Scope, status: tuple[int, int, int]) -> None:
    judgement = trouble.of_connect(error, REMOTE)
    assert (judgement.scope, judgement.trouble.status) == (scope, status)
    assert judgement.trouble.remote == REMOTE


def test_a_site_is_permanent_only_when_every_host_is() -> None:
    never = trouble.of_reply(Stage.GREETING, 521, NONE, "no mail", REMOTE)
    refused = trouble.of_reply(Stage.GREETING, 554, NONE, "no", REMOTE)
    later = trouble.of_loss(Stage.CONNECT, REMOTE, "")
    assert trouble.of_site([never, never]).is_permanent  # RFC 7504 §4
    assert not trouble.of_site([later, never]).is_permanent
    assert not trouble.of_site([refused]).is_permanent  # 554: the host's mood, tried again until expiry
    assert trouble.of_site([refused]).trouble.status[0] == 4
    # all told from one: there is no way left, and the last reason with it
    assert trouble.of_site([refused]).trouble.text == "no"
    assert trouble.of_site([later, refused]).trouble.text == "all 2 addresses failed, the last with: no"
    assert trouble.of_site([later, refused]).scope == Scope.SITE
    assert trouble.of_loop(REMOTE, "here").is_permanent
