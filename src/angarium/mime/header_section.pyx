# The header machine (csrc/mime/header.h) as Python sees it: for tests and tools. Submission calls it from inbound/submitted.pyx.
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from angarium.mime.cheader cimport *

ENDS = {MIME_HEADER_OPEN: "open", MIME_HEADER_BLANK: "blank", MIME_HEADER_BODY: "body"}


def find_end(bytes message not None):
    cdef size_t end
    cdef mime_header_end how = mime_header_find_end(message, len(message), &end)
    return ENDS[how], end


def fields(bytes header not None):
    cdef size_t at = 0
    cdef mime_field field
    found = []
    while mime_field_next(header, len(header), &at, &field):
        found.append((field.kind, header[field.start:field.value], header[field.value:field.end]))
    return found


def fields_for_any_reader(bytes message not None):
    cdef size_t at = 0
    cdef mime_field field
    found = []
    while mime_field_find(message, len(message), &at, &field):
        found.append((field.kind, message[field.start:field.value], message[field.value:field.end]))
    return found


def mailboxes(bytes value not None):
    cdef size_t at = 0
    cdef mime_mailbox mailbox
    found = []
    while mime_mailbox_next(value, len(value), &at, &mailbox):
        found.append((value[mailbox.start:mailbox.end], bool(mailbox.has_domain)))
    return found


def are_clear(bytes value not None):
    return bool(mime_mailboxes_are_clear(value, len(value)))


def complete(bytes header not None, bytes domain not None, bint without_sender=False):
    cdef size_t length = mime_header_complete(header, len(header), domain, len(domain), without_sender, NULL)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, length)
    mime_header_complete(header, len(header), domain, len(domain), without_sender, <uint8_t *>PyBytes_AS_STRING(out))
    return out
