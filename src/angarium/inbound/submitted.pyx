# Submission: fields that are missing are added in front of the message, behind our Received, and mailboxes without a domain
# get theirs (RFC 6409 §4.2, §8). For that the header section has to be seen whole before the first octet is stored, so it
# has to fit into the first run of a streamed message (128 KiB). A message that needs nothing is not copied.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy, strlen
from angarium.inbound.client cimport Client
from angarium.inbound.transaction cimport inbound_transaction
from angarium.mime.cheader cimport *
from angarium.mime.received cimport date_append
from angarium.model.clock cimport utc_ms
from angarium.model.octets cimport octets, octets_append, octets_new, octets_unref
from angarium.spool.cspool cimport spool_id_encode

from angarium.inbound.submission import HeaderFacts
from angarium.smtp import replies

cdef bytes HEADER_TOO_BIG = replies.HEADER_TOO_BIG
cdef bytes UNQUALIFIED_HEADER = replies.UNQUALIFIED_HEADER
cdef bytes LOCAL_TROUBLE = replies.LOCAL_TROUBLE
cdef bytes NO_MEMORY = replies.NO_MEMORY

cdef enum:
    ADDED_OCTETS = 1024             # Date, Message-ID and Sender: host name and identity have 255 octets at the most


cdef void submitted_fix(Client client, octets **body, bint is_last) noexcept:
    cdef inbound_transaction *transaction = client.transaction
    cdef const uint8_t *header = body[0].data + transaction.trace_octets
    cdef size_t length = body[0].length - transaction.trace_octets, end, at = 0, completed
    cdef mime_header_end how = mime_header_find_end(header, length, &end)
    cdef mime_field field
    cdef bytes completion = client.context.settings.completion, sender = None
    cdef size_t completion_length = PyBytes_GET_SIZE(completion) if completion is not None else 0
    cdef const uint8_t *domain = <const uint8_t *>PyBytes_AS_STRING(completion) if completion is not None else NULL
    cdef bint needs_date = client.context.adds_date, needs_id = client.context.adds_message_id, lacks_blank
    transaction.header = HEADER_SEEN
    if how == MIME_HEADER_OPEN and not is_last:
        refuse(client, HEADER_TOO_BIG)
        return
    # Whatever else is needed: some readers end the header section at a line that is no field, others read fields behind it. With
    # the empty line in front of it, or of a last line that does not end, what was judged below is what everybody reads.
    lacks_blank = how == MIME_HEADER_BODY or (how == MIME_HEADER_OPEN and end < length)
    while mime_field_next(header, end, &at, &field):
        if field.kind == MIME_FIELD_DATE:
            needs_date = False
        elif field.kind == MIME_FIELD_MESSAGE_ID:
            needs_id = False
    completed = mime_header_complete(header, end, domain, completion_length, False, NULL)
    if completed != end and completion_length == 0:
        refuse(client, UNQUALIFIED_HEADER)
        return
    if client.context.submission.asks and not is_from_known(client, header, end):
        try:
            facts = header_facts(header, end, completion)
            reply = client.context.submission.refusal(facts, client.rights)
            if reply is not None:
                refuse(client, reply)
                return
            sender = client.context.submission.sender(facts, client.session.identity)
            remember_from(client, facts)
        except Exception as error:
            client.context.intake.journal.log("error", where="submission", reason=repr(error))
            refuse(client, LOCAL_TROUBLE)
            return
    if needs_date or needs_id or sender is not None or completed != end or lacks_blank:
        if rebuild(client, body, end, completed, lacks_blank, needs_date, needs_id, sender) != 0:
            refuse(client, NO_MEMORY)


cdef bint is_from_known(Client client, const uint8_t *header, size_t length) noexcept:
    """Whether all there is to say of From was said of an earlier message of this session: one field, and the same address."""
    cdef size_t at = 0, inner = 0
    cdef mime_field field
    cdef mime_mailbox mailbox
    cdef bint is_found = False
    cdef bytes known = client.rights.known_from if client.rights is not None else None
    if known is None or client.context.submission.options.add_sender:       # a reload may just have wanted it
        return False
    while mime_field_next(header, length, &at, &field):
        if field.kind != MIME_FIELD_FROM:
            continue
        if is_found or not mime_mailbox_next(header + field.value, field.end - field.value, &inner, &mailbox):
            return False
        is_found = True
        if (not mailbox.has_domain or mailbox.end - mailbox.start != <size_t>PyBytes_GET_SIZE(known)
                or memcmp(header + field.value + mailbox.start, PyBytes_AS_STRING(known), mailbox.end - mailbox.start) != 0
                or mime_mailbox_next(header + field.value, field.end - field.value, &inner, &mailbox)
                or not mime_mailboxes_are_clear(header + field.value, field.end - field.value)):
            return False
    return is_found


cdef int remember_from(Client client, object facts) except -1:
    # Where a Sender field may have to be added every message is looked at.
    if client.rights is not None and not client.context.submission.options.add_sender and len(facts.from_addresses) == 1:
        client.rights.known_from = facts.from_addresses[0]
    return 0


cdef void refuse(Client client, bytes reply) noexcept:
    # Borrowed: replies are there as long as the process is.
    client.transaction.header = HEADER_REFUSED
    client.transaction.header_refusal = <void *>reply


cdef int rebuild(Client client, octets **body, size_t end, size_t completed, bint lacks_blank, bint needs_date, bint needs_id,
                 bytes sender) noexcept:
    cdef inbound_transaction *transaction = client.transaction
    cdef const uint8_t *header = body[0].data + transaction.trace_octets
    cdef size_t rest = body[0].length - transaction.trace_octets - end
    cdef bytes completion = client.context.settings.completion
    cdef octets *new = octets_new(transaction.trace_octets + ADDED_OCTETS + completed + rest)
    if new == NULL:
        return -1
    if (octets_append(&new, body[0].data, transaction.trace_octets) != 0
            or (needs_date and (put(&new, b"Date: ") != 0 or date_append(&new, utc_ms()) != 0 or put(&new, b"\r\n") != 0))
            or (needs_id and put_message_id(&new, client) != 0)
            or (sender is not None and (put(&new, b"Sender: ") != 0 or put_bytes(&new, sender) != 0 or put(&new, b"\r\n") != 0))):
        octets_unref(new)
        return -1
    # There is room: it was asked for above, and Sender can only go.
    if completed == end and sender is None:
        memcpy(new.data + new.length, header, end)
        new.length += end
    else:
        new.length += mime_header_complete(
            header, end, <const uint8_t *>PyBytes_AS_STRING(completion) if completion is not None else NULL,
            PyBytes_GET_SIZE(completion) if completion is not None else 0, sender is not None, new.data + new.length)
    if (lacks_blank and put(&new, b"\r\n") != 0) or octets_append(&new, header + end, rest) != 0:
        octets_unref(new)
        return -1
    octets_unref(body[0])
    body[0] = new
    return 0


cdef int put(octets **into, const char *text) noexcept:
    return octets_append(into, <const uint8_t *>text, strlen(text))


cdef int put_bytes(octets **into, bytes text) noexcept:
    return octets_append(into, <const uint8_t *>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


cdef int put_message_id(octets **into, Client client) noexcept:
    """Its left side is the id under which the message is queued: nobody else has it here (RFC 5322 §3.6.4)."""
    cdef char[14] id_text
    spool_id_encode(client.transaction.id, id_text)
    id_text[13] = 0
    if put(into, b"Message-ID: <") != 0 or put(into, id_text) != 0 or put(into, b"@") != 0:
        return -1
    if put_bytes(into, client.context.settings.hostname) != 0:
        return -1
    return put(into, b">\r\n")


cdef object header_facts(const uint8_t *header, size_t length, bytes completion):
    cdef size_t at = 0, inner
    cdef mime_field field
    cdef mime_mailbox mailbox
    cdef bytes address
    cdef list found
    counts = [0, 0]
    addresses = [[], []]
    are_clear = [True, True]
    while mime_field_next(header, length, &at, &field):
        if field.kind != MIME_FIELD_FROM and field.kind != MIME_FIELD_SENDER:
            continue
        counts[field.kind == MIME_FIELD_SENDER] += 1
        if not mime_mailboxes_are_clear(header + field.value, field.end - field.value):
            are_clear[field.kind == MIME_FIELD_SENDER] = False
        found = addresses[field.kind == MIME_FIELD_SENDER]
        inner = 0
        while mime_mailbox_next(header + field.value, field.end - field.value, &inner, &mailbox):
            address = header[field.value + mailbox.start:field.value + mailbox.end]
            found.append(address if mailbox.has_domain else address + b"@" + (completion or b""))
    return HeaderFacts(counts[0], addresses[0], are_clear[0], counts[1], addresses[1], are_clear[1])
