# Limits of clients' networks and of the machine, as connections and verbs meet them. The counting is csrc/admission's; here
# is who is counted and what one over a limit is told.
#
# A listener without limits has no gate, and its clients are not counted: that comparison is all it costs.
from angarium.admission.tallies cimport (
    OVER_NONE, OVER_OPEN, TALLY_AUTH_ATTEMPTS, TALLY_ERRORS, TALLY_HANDSHAKES, TALLY_MESSAGES, TALLY_RECIPIENTS,
    Visit, tally_kind, tally_session_give, tally_session_take,
)
from angarium.inbound.client cimport Client, is_mapped
from angarium.inbound.gate cimport Gate
from angarium.metrics.counters cimport Counter

from angarium.metrics.counters import counter
from angarium.smtp import replies

cdef Counter full_total = counter(
    "angarium_in_machine_full_total", "Connections answered 421: admission.max_sessions.")
cdef Counter open_total = counter(
    "angarium_in_network_connections_total", "Connections answered 421: too many of their network are open.")
cdef Counter rate_total = counter(
    "angarium_in_network_connection_rate_total", "Connections answered 421: too many of their network came.")
cdef Counter errors_total = counter(
    "angarium_in_network_errors_total", "Connections and sessions answered 421: too many errors of their network.")
cdef Counter messages_total = counter(
    "angarium_in_network_messages_total", "MAIL answered 450: too many messages of the client's network.")
cdef Counter recipients_total = counter(
    "angarium_in_network_recipients_total", "RCPT answered 450: too many recipients of the client's network.")
cdef Counter handshakes_total = counter(
    "angarium_in_network_handshakes_total", "TLS refused: too many handshakes of the client's network.")

cdef Counter auth_attempts_total = counter(
    "angarium_in_network_auth_attempts_total", "AUTH answered 454: too many attempts of the client's network.")

cdef bytes LOCAL_TROUBLE = replies.LOCAL_TROUBLE
cdef bytes MACHINE_FULL = replies.MACHINE_FULL
cdef bytes NETWORK_CONNECTIONS = replies.NETWORK_CONNECTIONS
cdef bytes NETWORK_CONNECTION_RATE = replies.NETWORK_CONNECTION_RATE
cdef bytes NETWORK_ERRORS = replies.NETWORK_ERRORS
cdef bytes NETWORK_MESSAGES = replies.NETWORK_MESSAGES
cdef bytes NETWORK_RECIPIENTS = replies.NETWORK_RECIPIENTS
cdef bytes NETWORK_HANDSHAKES = replies.NETWORK_HANDSHAKES
cdef bytes NETWORK_AUTH_ATTEMPTS = replies.NETWORK_AUTH_ATTEMPTS


cdef bint limits_await(Client client) noexcept:
    """Whose connection it is will be said: it has its place among the machine's sessions until then, and keeps it unless its client
    turns out to be exempt. False: there is none, and the session says so."""
    cdef Gate gate = client.context.gate
    if gate is None or gate.max_sessions == 0:
        return True
    if tally_session_take(gate.tallies.table, gate.tallies.worker, gate.max_sessions):
        client.counted_by = gate.tallies
        return True
    full_total.cell[0] += 1
    client.session.close_with(MACHINE_FULL)
    return False


cdef bytes limits_enter(Client client):
    return enter(client, client.context.gate, client.may_relay)


cdef bytes limits_move(Client client, bint is_own):
    """Somebody else is the client now. The peer's count goes before the client's own is taken, for both may be of one network;
    its place among the machine's sessions is kept, or another connection might get it in between."""
    cdef Gate gate = client.context.gate
    client.counted = None                     # gives its places back
    client.is_over_errors = client.was_stranger = False
    if gate is None or gate.exempt.has(client.binary_address):
        limits_leave(client)
        client.is_stranger = False
    if gate is None:
        return None
    return enter(client, gate, is_own)


cdef bytes enter(Client client, Gate gate, bint is_own):
    cdef Visit visit
    cdef int over
    if gate.exempt.has(client.binary_address):
        limits_leave(client)                  # the place it had while nobody knew
        return None
    client.is_stranger = not is_own
    if gate.max_sessions and client.counted_by is None:
        if not tally_session_take(gate.tallies.table, gate.tallies.worker, gate.max_sessions):
            full_total.cell[0] += 1
            return MACHINE_FULL
        client.counted_by = gate.tallies
    if gate.rules is None:
        return None
    visit = Visit.__new__(Visit)
    over = gate.rules.enter(visit, client.binary_address, is_mapped(client.binary_address), is_own)
    if over == OVER_NONE:
        client.counted = visit
        return None
    if over == OVER_OPEN:
        open_total.cell[0] += 1
        return NETWORK_CONNECTIONS
    if over == TALLY_ERRORS:
        errors_total.cell[0] += 1
        return NETWORK_ERRORS
    rate_total.cell[0] += 1
    return NETWORK_CONNECTION_RATE


cdef void limits_leave(Client client) noexcept:
    client.counted = None                     # gives its places back
    if client.counted_by is not None:
        tally_session_give(client.counted_by.table, client.counted_by.worker)
        client.counted_by = None


cdef void limits_own(Client client) noexcept:
    client.was_stranger = client.was_stranger or client.is_stranger
    client.is_stranger = False
    client.tarpit_ms = 0
    if client.counted is not None:
        client.counted.keep_own()


cdef void limits_again(Client client) noexcept:
    cdef bytes reply
    try:
        reply = limits_move(client, False)
    except Exception as error:
        client.context.intake.journal.log("error", where="limits", reason=repr(error))
        reply = client.context.settings.trouble_reply
    if reply is not None:
        client.session.close_with(reply)
        client.tell_rejected(client.session.refusal)


cdef bytes limits_refuse(Client client, tally_kind kind):
    return None if client.counted.take(kind) == OVER_NONE else reply_over(kind)


cdef bytes limits_one_more(Client client, tally_kind kind):
    cdef bytes reply = None
    if client.counted is not None:
        reply = limits_refuse(client, kind)
    if reply is not None or client.rights is None:
        return reply
    try:
        return client.rights.take_message() if kind == TALLY_MESSAGES else client.rights.take_recipient()
    except Exception as error:
        client.context.intake.journal.log("error", where="rights", reason=repr(error))
        return LOCAL_TROUBLE


cdef bytes limits_over(Client client, tally_kind kind):
    return None if client.counted.may_take(kind) == OVER_NONE else reply_over(kind)


cdef bytes reply_over(tally_kind kind):
    if kind == TALLY_MESSAGES:
        messages_total.cell[0] += 1
        return NETWORK_MESSAGES
    if kind == TALLY_RECIPIENTS:
        recipients_total.cell[0] += 1
        return NETWORK_RECIPIENTS
    if kind == TALLY_HANDSHAKES:
        handshakes_total.cell[0] += 1
        return NETWORK_HANDSHAKES
    if kind == TALLY_AUTH_ATTEMPTS:
        auth_attempts_total.cell[0] += 1
        return NETWORK_AUTH_ATTEMPTS
    errors_total.cell[0] += 1
    return NETWORK_ERRORS


def is_exempt(Client client not None):
    gate = client.context.intake.gate
    return gate is not None and (<Gate>gate).exempt.has(client.binary_address)
