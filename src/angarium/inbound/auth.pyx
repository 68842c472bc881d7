# AUTH: who is offered it, and where exchanges go (authority.py). Lines and order were checked by the session.
from angarium.admission.tallies cimport TALLY_AUTH_ATTEMPTS
from angarium.inbound.client cimport Client
from angarium.inbound.context cimport InboundContext
from angarium.inbound.limits cimport limits_refuse
from angarium.smtp.server_dialogue cimport EVENT_AUTH
from angarium.smtp.server_session cimport ServerSession

from angarium.smtp import replies

cdef bytes AUTH_UNAVAILABLE = replies.AUTH_UNAVAILABLE


cdef void auth_offer(Client client) noexcept:
    """Only under TLS, but for the networks that the listener trusts with passwords in clear."""
    cdef InboundContext context = client.context
    cdef ServerSession session = client.session
    session.mechanisms = None
    session.auth_needs_tls = False
    if not context.is_auth_offered or context.intake.authority is None:
        return
    if not session.is_tls and not context.auth_in_clear.has(client.binary_address):
        session.auth_needs_tls = True
        return
    try:
        session.mechanisms = context.intake.authority.offered(client, context.auth_mechanisms)
    except Exception as error:
        context.intake.journal.log("error", where="auth", reason=repr(error))


cdef void auth_refresh(Client client) noexcept:
    """Who has come in stays in, with the rights that hold now."""
    try:
        client.rights = client.context.intake.authority.rights_of(client.session.identity.decode())
    except Exception as error:
        client.context.intake.journal.log("error", where="auth", reason=repr(error))


cdef void proceed_auth(Client client) noexcept:
    cdef ServerSession session = client.session
    cdef bytes reply
    try:
        # Of a network, before anybody is asked: many addresses that try one password each fail in no limit of one address.
        if session.asked == EVENT_AUTH and client.counted is not None and (
                reply := limits_refuse(client, TALLY_AUTH_ATTEMPTS)) is not None:
            session.refuse(reply)
            client.tell_rejected(session.refusal)
            return
        if session.asked == EVENT_AUTH:
            client.attempt = client.context.intake.authority.begin(
                client, session.mechanism, b"SCRAM-SHA-256-PLUS" in session.mechanisms.split())
        client.attempt.respond(session.response)
    except Exception as error:
        client.attempt = None
        client.context.intake.journal.log("error", where="auth", reason=repr(error))
        session.refuse(AUTH_UNAVAILABLE)
        client.tell_rejected(session.refusal)


cdef void auth_drop(Client client) noexcept:
    attempt, client.attempt = client.attempt, None
    try:
        attempt.drop()
    except Exception as error:
        client.context.intake.journal.log("error", where="auth", reason=repr(error))
