# DATA and BDAT: the trace field in front, runs of a large message to the spool, the end to the commit.
# One file for both verbs, because they differ only in what the session does.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport realloc
from angarium.inbound.chunks cimport chunks_submit, chunks_submit_last
from angarium.inbound.client cimport Client
from angarium.inbound.commit cimport commit_drop, commit_submit
from angarium.inbound.context cimport Intake
from angarium.inbound.scheduled cimport scheduled_take
from angarium.inbound.solicitation cimport solicitation_look
from angarium.inbound.submitted cimport HEADER_DUE, HEADER_OF_NO_CONCERN, HEADER_REFUSED, HEADER_SEEN, submitted_fix
from angarium.inbound.transaction cimport inbound_transaction
from angarium.inbound.verdict cimport VERDICT_DISCARDED, VERDICT_NONE, VERDICT_PENDING, VERDICT_REFUSED, message_verdict
from angarium.mime.received cimport received_append, received_facts
from angarium.model.clock cimport utc_ms
from angarium.model.octets cimport octets, octets_new, octets_unref
from angarium.smtp.server_parameters cimport MAIL_PRIORITY, MAIL_SOLICIT
from angarium.smtp.server_session cimport ServerSession
from angarium.spool.cspool cimport (
    SPOOL_ENVELOPE_8BIT, SPOOL_ENVELOPE_DOT_LINE, SPOOL_ENVELOPE_NO_FINAL_CRLF, SPOOL_ENVELOPE_REQUIRETLS,
    SPOOL_ENVELOPE_TLS_OPTIONAL, spool_id_encode,
)

from angarium.smtp import replies

cdef bytes NO_MEMORY = replies.NO_MEMORY

cdef enum:
    # A 4 KiB message and its trace field without a move, and little left over: it stays so large while it is queued.
    FIRST_BODY_OCTETS = 6144
    TRACE_OCTETS = 512
    WORTH_TRIMMING = 1024
    # What an announced SIZE may make us set aside before the octets are there.
    ANNOUNCED_LIMIT = 128 << 10


cdef void proceed_data(Client client) noexcept:
    cdef ServerSession session = client.session
    cdef inbound_transaction *transaction = client.transaction
    cdef Intake intake = client.context.intake
    cdef octets *body
    cdef uint64_t announced = transaction.announced_octets
    transaction.id = intake.shard.next_id()
    if announced > ANNOUNCED_LIMIT:
        announced = ANNOUNCED_LIMIT
    body = octets_new(announced + TRACE_OCTETS if announced > FIRST_BODY_OCTETS - TRACE_OCTETS else FIRST_BODY_OCTETS)
    if body == NULL or write_trace(client, &body) != 0:
        octets_unref(body)
        if not session.is_chunking:     # a chunk is read first, then the session tells
            client.tell_rejected(NO_MEMORY)
        session.refuse(NO_MEMORY)
        if not session.has_transaction():
            commit_drop(client)
        return
    transaction.trace_octets = <uint32_t>body.length
    if client.context.reads_header or session.settings.no_soliciting is not None:
        transaction.header = HEADER_DUE
    session.begin_data_with(body)


cdef int write_trace(Client client, octets **body) noexcept:
    cdef inbound_transaction *transaction = client.transaction
    cdef ServerSession session = client.session
    cdef bytes hostname = client.context.settings.hostname
    cdef bytes known
    cdef received_facts facts
    cdef char[13] message_id
    cdef char[12] priority
    cdef size_t i
    spool_id_encode(transaction.id, message_id)
    facts.helo = <const uint8_t *>PyBytes_AS_STRING(session.helo)
    facts.helo_length = PyBytes_GET_SIZE(session.helo)
    facts.name_length = 0
    if client.introduced is not None and (name := client.introduced.name):
        known = name.encode("ascii")
        facts.name = <const uint8_t *>PyBytes_AS_STRING(known)
        facts.name_length = PyBytes_GET_SIZE(known)
    facts.address = <const uint8_t *>client.address
    facts.address_length = client.address_length
    facts.hostname = <const uint8_t *>PyBytes_AS_STRING(hostname)
    facts.hostname_length = PyBytes_GET_SIZE(hostname)
    facts.protocol = transaction.protocol
    facts.tls_version = transaction.tls_version
    facts.tls_cipher = transaction.tls_cipher
    facts.id = message_id
    facts.forward_path_length = 0
    if transaction.recipient_count == 1:    # RFC 5321 §7.2: recipients must not learn of each other
        facts.forward_path = transaction.envelope.data + transaction.first_path_offset
        facts.forward_path_length = transaction.first_path_length
        for i in range(facts.forward_path_length):
            if facts.forward_path[i] > 127:
                transaction.flags |= SPOOL_ENVELOPE_8BIT
    facts.priority = NULL
    if session.mail.flags & MAIL_PRIORITY:
        snprintf(priority, sizeof(priority), b"%d", <int>session.mail.priority)
        facts.priority = priority
    facts.solicit_length = 0
    if session.mail.flags & MAIL_SOLICIT:
        facts.solicit = <const uint8_t *>PyBytes_AS_STRING(session.solicit)
        facts.solicit_length = PyBytes_GET_SIZE(session.solicit)
    facts.utc_ms = utc_ms()
    return received_append(body, &facts)


cdef bint proceed_body(Client client) noexcept:
    cdef octets *run
    cdef uint8_t verdict = VERDICT_NONE
    if client.transaction.header != HEADER_OF_NO_CONCERN and is_refused_header(client, False):
        octets_unref(client.session.take_body_octets())
        return True
    if client.context.judges is not None or client.transaction.verdict != VERDICT_NONE:
        verdict = verdict_of(client, False)
        if verdict == VERDICT_PENDING:
            return False
    run = client.session.take_body_octets()
    if verdict >= VERDICT_REFUSED:
        octets_unref(run)
        return True
    if run == NULL or chunks_submit(client.transaction, run):
        return True
    client.session.message.body = run               # the session grows it by what is already read; then we read no more
    return False


cdef octets *trimmed(octets *body) noexcept:
    """Without the room it grew into: the scheduler keeps it until the first attempt and counts its length only."""
    cdef octets *smaller
    if body.capacity - body.length < WORTH_TRIMMING:
        return body
    smaller = <octets *>realloc(body, sizeof(octets) + body.length)
    if smaller == NULL:
        return body
    smaller.capacity = smaller.length
    return smaller


cdef uint8_t verdict_of(Client client, bint is_whole) noexcept:
    cdef inbound_transaction *transaction = client.transaction
    # Who was appointed by a reload in the middle of a message does not see the rest of it.
    if transaction.verdict == VERDICT_NONE and (not client.context.judges.message or transaction.chunk_count
                                                or client.session.message.body == NULL):
        return VERDICT_NONE
    return message_verdict(client, is_whole)


cdef bint is_refused_header(Client client, bint is_whole) noexcept:
    cdef inbound_transaction *transaction = client.transaction
    if transaction.header == HEADER_DUE and client.session.message.body != NULL:
        transaction.header = HEADER_SEEN
        if client.session.settings.no_soliciting is not None:
            solicitation_look(client, client.session.message.body)
        if client.context.hold_field is not None and transaction.header != HEADER_REFUSED:
            scheduled_take(client, client.session.message.body, is_whole)
        if client.context.is_submission and transaction.header != HEADER_REFUSED:
            submitted_fix(client, &client.session.message.body, is_whole)
    return transaction.header == HEADER_REFUSED


cdef void proceed_message(Client client) noexcept:
    if client.transaction.header != HEADER_OF_NO_CONCERN and is_refused_header(client, True):
        octets_unref(client.session.take_body_octets())
        refuse_message(client, <bytes>client.transaction.header_refusal, None)
        return
    if ((client.context.judges is not None or client.transaction.verdict != VERDICT_NONE)
            and verdict_of(client, True) == VERDICT_PENDING):
        client.transaction.awaits_verdict = True
        return
    finish_message(client)


cdef void finish_message(Client client) noexcept:
    cdef inbound_transaction *transaction = client.transaction
    cdef ServerSession session = client.session
    cdef Intake intake = client.context.intake
    cdef octets *body = session.take_body_octets()
    if session.message.machine.has_8bit:
        transaction.flags |= SPOOL_ENVELOPE_8BIT
    if session.message.machine.has_dot_line:
        transaction.flags |= SPOOL_ENVELOPE_DOT_LINE
    if (session.message.machine.is_tls_optional and client.context.heeds_tls_field
            and not transaction.flags & SPOOL_ENVELOPE_REQUIRETLS):
        transaction.flags |= SPOOL_ENVELOPE_TLS_OPTIONAL    # RFC 8689 §4.1: next to REQUIRETLS the field means nothing
    if session.message.machine.octets_out != 0 and not session.message.machine.ends_with_crlf:
        transaction.flags |= SPOOL_ENVELOPE_NO_FINAL_CRLF
    if transaction.verdict == VERDICT_REFUSED:
        octets_unref(body)
        refuse_message(client, (<object>transaction.refusal).reply, <object>transaction.refusal)
        return
    transaction.is_ended = True
    intake.transaction_ended()
    intake.committing += 1
    if transaction.chunk_count == 0 and transaction.error == 0:
        body = trimmed(body)
        transaction.op.body = body
        transaction.message_octets = body.length
        commit_submit(transaction)
        return
    if transaction.verdict == VERDICT_DISCARDED:
        octets_unref(body)
        transaction.message_octets = session.message.machine.octets_out
        commit_submit(transaction)
        return
    # Streamed: the rest is one more chunk, however many are on their way; chunk_done() of the last one commits.
    if body != NULL and body.length:
        chunks_submit_last(transaction, body)
    else:
        octets_unref(body)
    transaction.message_octets = transaction.streamed_octets
    if transaction.in_flight == 0:
        commit_submit(transaction)


cdef void refuse_message(Client client, bytes reply, object refusal) noexcept:
    """refusal: of judges; None: the reply is one of replies.py."""
    if refusal is not None:
        client.tell_refusal(NULL, 0, refusal)
    else:
        client.tell_rejected(reply)
    commit_drop(client)
    if reply.startswith(b"421") or reply.startswith(b"521"):
        client.session.close_with(reply)
    else:
        client.session.finish_refused(reply)
