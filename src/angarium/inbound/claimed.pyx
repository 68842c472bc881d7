# XCLIENT, XFORWARD and ETRN: for whom a listed peer speaks, where its next message came from, and whose mail is to be tried
# now. What may be said is judged in claims.py and etrn.py; here it takes effect. Never on the way of other clients' mail.
from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy, memset
from angarium.inbound.client cimport Client
from angarium.inbound.context cimport InboundContext
from angarium.inbound.inquiry cimport inquire
from angarium.inbound.limits cimport limits_move
from angarium.smtp.server_session cimport ServerSession

import ipaddress

from angarium.inbound import claims
from angarium.inbound.judgement import ConnectCase
from angarium.smtp import replies

cdef bytes CLAIM_SYNTAX = replies.CLAIM_SYNTAX
cdef bytes XFORWARD_OK = replies.XFORWARD_OK
cdef bytes LOCAL_TROUBLE = replies.LOCAL_TROUBLE
cdef bytes XCLIENT_LINE = claims.XCLIENT_LINE
cdef bytes XFORWARD_LINE = claims.XFORWARD_LINE


cdef void claims_offer(Client client) noexcept:
    cdef InboundContext context = client.context
    cdef ServerSession session = client.session
    cdef const uint8_t *address = &client.binary_address[0]
    cdef bytes lines = b""
    if client.introduced is not None:
        address = &client.own_address[0]
    session.takes_xclient = context.xclient_from.has(address)
    session.takes_xforward = context.xforward_from.has(address)
    session.takes_etrn = context.etrn is not None and context.intake.etrn is not None
    try:
        if session.takes_xclient:
            lines += XCLIENT_LINE
        if session.takes_xforward:
            lines += XFORWARD_LINE
        if session.takes_etrn:
            lines += b"250-ETRN\r\n"
    except MemoryError:
        pass
    session.extensions = lines or None


cdef void proceed_xclient(Client client) noexcept:
    cdef ServerSession session = client.session
    cdef object now, before = client.introduced
    cdef bytes reply
    try:
        now = claims.introduction(before, session.argument)
        if before is None:
            memcpy(client.own_address, client.binary_address, 16)
        client.context.intake.journal.log(
            "introduced", peer=address_text(client.own_address), **claims.log_fields(now))
    except claims.BadClaim as error:
        refuse(client, CLAIM_SYNTAX % str(error).encode("ascii"))
        return
    except Exception as error:
        client.context.intake.journal.log("error", where="xclient", reason=repr(error))
        refuse(client, LOCAL_TROUBLE)
        return
    client.introduced = now
    client.forwarded = None
    client.visit = None                 # what policy has found out about the peer is not about the client
    client.tarpit_ms = 0                # nor is what it was kept waiting for, or let in for
    client.let_in_until_ms = 0
    try:
        reply = counted_as(client, now)
    except Exception as error:
        client.context.intake.journal.log("error", where="xclient", reason=repr(error))
        reply = client.context.settings.trouble_reply
    if reply is not None:
        client.session.close_with(reply)
        return
    # As after connecting: whoever would not have been greeted under this address is not (XCLIENT_README).
    if client.context.judges is not None and client.context.judges.connect:
        client.is_being_introduced = True
        inquire(client, client.context.judges.connect, ConnectCase(client), judged)
    else:
        begin_anew(client)


cdef bytes counted_as(Client client, object now):
    """From now on limits count the client that was introduced, where they counted the peer or whom it introduced before. A
    command that leaves address and rights as they were introduces nobody new to them. The reply when it may not come in."""
    cdef uint8_t[16] before
    cdef bint is_own
    memcpy(before, client.binary_address, 16)
    if now.has_address:
        take_address(client, now.address)
    is_own = client.context.relay_from.has(client.binary_address) or now.login != ""
    if memcmp(before, client.binary_address, 16) == 0 and client.is_stranger != is_own:
        return None
    return limits_move(client, is_own)


cdef void judged(Client client, object case, object refusal) noexcept:
    client.is_being_introduced = False
    if refusal is not None:
        client.tell_refusal(NULL, 0, refusal)
        client.session.close_with(refusal.reply)
    else:
        begin_anew(client)
    client.resume()


cdef void begin_anew(Client client) noexcept:
    cdef object now = client.introduced
    client.session.reintroduce(now.helo.encode() if now.helo is not None else None, now.proto == "ESMTP",
                               now.login.encode() if now.login else None)
    client.find_rights_of_claim()


cdef str address_text(const uint8_t *address):
    found = ipaddress.IPv6Address(address[:16])
    return str(found.ipv4_mapped) if found.ipv4_mapped is not None else f"IPv6:{found}"


cdef void take_address(Client client, object address) noexcept:
    """None: nobody knows. Then it is 0.0.0.0, in no network but 0.0.0.0/0; not nothing, which is a local client."""
    cdef bytes packed
    memset(client.binary_address, 0, 10)
    memset(client.binary_address + 10, 255, 2)
    memset(client.binary_address + 12, 0, 4)
    packed = address.packed if address is not None else bytes(4)
    if len(packed) == 4:
        memcpy(client.binary_address + 12, <const char *>packed, 4)
    else:
        memcpy(client.binary_address, <const char *>packed, 16)     # ::ffff:a.b.c.d is an IPv4 client
    client.name_address()


cdef void proceed_xforward(Client client) noexcept:
    cdef ServerSession session = client.session
    try:
        client.forwarded = claims.forwarded(client.forwarded, session.argument)
    except claims.BadClaim as error:
        refuse(client, CLAIM_SYNTAX % str(error).encode("ascii"))
        return
    except Exception as error:
        client.context.intake.journal.log("error", where="xforward", reason=repr(error))
        refuse(client, LOCAL_TROUBLE)
        return
    session.answer(XFORWARD_OK)


cdef void proceed_etrn(Client client) noexcept:
    cdef bytes reply
    try:
        reply = client.context.intake.etrn.ask(client, client.context.etrn, client.session.argument)
    except Exception as error:
        client.context.intake.journal.log("error", where="etrn", reason=repr(error))
        reply = LOCAL_TROUBLE
    if reply is None:
        return
    tell(client, reply)


cdef void tell(Client client, bytes reply) noexcept:
    if reply[0] != c'2':
        client.tell_rejected(reply)
    client.session.answer(reply)


cdef void refuse(Client client, bytes reply) noexcept:
    client.tell_rejected(reply)
    client.session.answer(reply)
