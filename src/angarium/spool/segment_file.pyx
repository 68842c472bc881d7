# One segment file, read and never written: for tools and tests that look into a spool from outside. It stands on the same
# scanner as recovery (csrc/spool/scan.c), so that both find the same records.
# What it is not: it does not know which messages live (backlog.py), nor what a worker does meanwhile (the caller looks again).
from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport EINTR, ENOMEM, EPROTO, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from angarium.spool.cscan cimport (
    SPOOL_HEADER_COPY_OFFSET, SPOOL_HEADER_OCTETS, SPOOL_HEADER_USED_OCTETS, SPOOL_LOCATOR_OCTETS, SPOOL_RECORD_OCTETS,
    crc32c, spool_header_decode, spool_index_entry, spool_locator, spool_locator_decode, spool_record,
    spool_record_crc_header, spool_record_decode, spool_record_size, spool_scan, spool_scan_clear, spool_scan_find,
    spool_scan_records, spool_scan_segment, spool_segment_header, spool_source,
)
from posix.unistd cimport close, pread

import enum
import errno as numbers
import os

import msgspec

from angarium.model.errors import SpoolCorrupt, SpoolError, SpoolVersion


# What a read says of a medium that has lost octets, or of a file system that has lost its way to them. Others (EBADF, EINVAL,
# ENOMEM) say nothing about the spool.
UNREADABLE = frozenset((
    numbers.EIO, numbers.EREMOTEIO, numbers.EUCLEAN, numbers.EBADMSG, numbers.EILSEQ, numbers.ENODATA, numbers.ENOLINK, numbers.ETIMEDOUT,
))


class Kind(enum.IntEnum):
    BODY = 1
    ENVELOPE = 2
    OUTCOME = 3
    FREED = 4
    FOOTER = 5


class Header(msgspec.Struct, frozen=True):
    version: int
    is_live: bool
    shard: int
    salt: int
    serial: int
    incarnation: int
    segment_octets: int
    created_utc_s: int
    generation: int


class Entry(msgspec.Struct, frozen=True, gc=False):
    offset: int
    length: int
    id: int
    kind: int

    @property
    def end(self):
        return self.offset + spool_record_size(self.length)


cdef int read_all(int fd, uint64_t offset, void *out, size_t length) noexcept nogil:
    cdef uint8_t *at = <uint8_t *>out
    cdef ssize_t got
    while length > 0:
        got = pread(fd, at, length, <long>offset)
        if got < 0 and errno == EINTR:
            continue
        if got <= 0:
            return errno if got < 0 else -1        # -1: the file ends before
        at += got
        offset += <uint64_t>got
        length -= <size_t>got
    return 0


cdef enum:
    BLOCK_OCTETS = 4096         # what the scanner reads at a time around a place that cannot be read
    UNREADABLE_MAX = 64         # places told apart; with more the last one grows over what lies between


cdef struct unreadable_place:
    uint64_t start, end
    int error


cdef struct read_context:
    int fd
    uint32_t count
    unreadable_place places[UNREADABLE_MAX]


cdef void note_unreadable(read_context *self, uint64_t offset, size_t length, int error) noexcept nogil:
    cdef uint64_t start = offset - offset % BLOCK_OCTETS
    cdef uint64_t end = (offset + length + BLOCK_OCTETS - 1) // BLOCK_OCTETS * BLOCK_OCTETS
    cdef unreadable_place *place
    cdef uint32_t i
    for i in range(self.count):
        place = &self.places[i]
        if (start <= place.end and end >= place.start and error == place.error) or i == UNREADABLE_MAX - 1:
            place.start = min(start, place.start)
            place.end = max(end, place.end)
            return
    self.places[self.count] = unreadable_place(start, end, error)
    self.count += 1


cdef int source_read(void *context, uint64_t offset, void *out, size_t length) noexcept nogil:
    cdef read_context *self = <read_context *>context
    cdef int error = read_all(self.fd, offset, out, length)
    # The scanner reads a longer piece again, block by block. Behind the file's end is nothing that could be read.
    if error > 0 and length <= BLOCK_OCTETS:
        note_unreadable(self, offset, length, error)
    return error


cdef class Scan:
    """Owns the C scan from its making to its end."""
    cdef spool_scan c
    cdef readonly list unreadable

    def __dealloc__(self):
        spool_scan_clear(&self.c)

    def __len__(self):
        return self.c.count

    @property
    def has_footer(self):
        return self.c.has_footer

    @property
    def last_batch(self):
        return self.c.last_batch

    @property
    def torn_count(self):
        return self.c.torn_count

    @property
    def end(self):
        return self.c.end

    @property
    def damaged(self):
        return [(self.c.damaged[i].start, self.c.damaged[i].end) for i in range(self.c.damaged_count)]

    def entries(self, *kinds):
        cdef uint32_t i
        cdef uint32_t wanted = 0
        cdef const spool_index_entry *entry
        for kind in kinds:
            wanted |= 1 << <int>kind
        for i in range(self.c.count):
            entry = &self.c.entries[i]
            if wanted == 0 or wanted >> entry.kind & 1:
                yield Entry(entry.offset, entry.length, entry.id, entry.kind)

    def find(self, uint32_t offset):
        cdef const spool_index_entry *entry = spool_scan_find(&self.c, offset)
        return None if entry == NULL else Entry(entry.offset, entry.length, entry.id, entry.kind)

    def has_same_entries(self, Scan other):
        cdef uint32_t i
        cdef const spool_index_entry *a
        cdef const spool_index_entry *b
        if self.c.count != other.c.count:
            return False
        for i in range(self.c.count):
            a, b = &self.c.entries[i], &other.c.entries[i]
            if a.offset != b.offset or a.length != b.length or a.id != b.id or a.kind != b.kind:
                return False
        return True


cdef raise_unreadable(error, what):
    """From a handler of OSError."""
    if error.errno not in UNREADABLE:
        raise error
    raise SpoolCorrupt(f"{what} cannot be read: {os.strerror(error.errno)}") from None


cdef class SegmentFile:
    """Owns the descriptor from __init__ to close()."""
    cdef int fd
    cdef readonly str name

    def __cinit__(self):
        self.fd = -1

    def __init__(self, int directory_fd, str name):
        self.name = name
        self.close()
        try:
            self.fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory_fd)
        except OSError as error:
            raise_unreadable(error, "the file")

    def __dealloc__(self):
        self.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    cpdef close(self):
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1

    @property
    def file_octets(self):
        return os.fstat(self.fd).st_size

    # --- header and locator ---

    cdef bytes block(self):
        cdef bytes octets
        try:
            octets = os.pread(self.fd, SPOOL_HEADER_OCTETS, 0)
        except OSError as error:
            raise_unreadable(error, "its header")
        return octets + bytes(SPOOL_HEADER_OCTETS - len(octets))

    def has_octets(self):
        """Whether anything but zeros is behind the header block."""
        cdef object at = SPOOL_HEADER_OCTETS
        cdef bytes octets
        while octets := os.pread(self.fd, 1 << 16, at):
            if octets.strip(b"\0"):
                return True
            at += len(octets)
        return False

    def header(self):
        cdef bytes block = self.block()
        cdef spool_segment_header c
        cdef int error
        if not any(block):
            return None
        error = spool_header_decode(<const uint8_t *>PyBytes_AS_STRING(block), &c)
        if error == -EPROTO:
            raise SpoolVersion(f"{self.name} has format version {c.version}, this program reads version 1")
        if error != 0:
            raise SpoolCorrupt("both copies of its header are damaged")
        if c.serial == 0 or c.salt == 0 or not 4 * SPOOL_HEADER_OCTETS <= c.segment_octets <= 1 << 30:
            raise SpoolCorrupt("its header makes no sense")
        return Header(c.version, c.use == 1, c.shard, c.salt, c.serial, c.incarnation, c.segment_octets, c.created_utc_s,
                      c.generation)

    def damaged_header_copies(self):
        cdef bytes block = self.block()
        cdef bytearray lone
        cdef spool_segment_header c, counted
        offsets = []
        if spool_header_decode(<const uint8_t *>PyBytes_AS_STRING(block), &counted) != 0:
            return offsets
        for offset in (0, SPOOL_HEADER_COPY_OFFSET):
            lone = bytearray(SPOOL_HEADER_OCTETS)
            lone[:SPOOL_HEADER_USED_OCTETS] = block[offset:offset + SPOOL_HEADER_USED_OCTETS]
            # Zeros are no damage: the file's first header was cut short between its copies. A header cut short later leaves a
            # copy of the header before, and before another use of the file comes the free one.
            if not any(lone):
                continue
            if spool_header_decode(<const uint8_t *>lone, &c) != 0 or (c.use == 1 and c.serial != counted.serial):
                offsets.append(offset)
        return offsets

    def index_damage(self, header, Scan scan):
        cdef spool_locator locator
        cdef bytes octets
        try:
            octets = os.pread(self.fd, SPOOL_LOCATOR_OCTETS, header.segment_octets - SPOOL_HEADER_OCTETS)
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            return f"the locator of the footer cannot be read: {os.strerror(error.errno)}"
        if len(octets) < SPOOL_LOCATOR_OCTETS or not any(octets):
            return None
        # A locator is one sector: a crash leaves the old one or the new one, each whole. It is written when its footer is durable.
        if not spool_locator_decode(<const uint8_t *>PyBytes_AS_STRING(octets), &locator):
            return "the locator of the footer is damaged"
        if locator.salt == header.salt and not scan.c.has_footer:
            return "the footer is damaged"
        return None

    # --- records ---

    def _scan(self, header, bint by_footer):
        cdef Scan result = Scan()
        cdef spool_source source
        cdef read_context context
        cdef int error
        context.fd = self.fd
        context.count = 0
        source.octets = header.segment_octets
        source.salt = header.salt
        source.read = source_read
        source.context = &context
        with nogil:
            if by_footer:
                error = spool_scan_segment(&source, NULL, &result.c)
            else:
                error = spool_scan_records(&source, NULL, &result.c)
        if error != 0:
            raise MemoryError() if error == ENOMEM else SpoolError(f"{self.name}: {os.strerror(error)}")
        places = [context.places[i] for i in range(context.count)]
        result.unreadable = sorted(
            (place["start"], min(place["end"], header.segment_octets), os.strerror(place["error"])) for place in places
        )
        return result

    def scan(self, header):
        return self._scan(header, True)

    def scan_records(self, header):
        return self._scan(header, False)

    def read(self, header, uint32_t offset, uint32_t length, uint32_t kind, uint64_t message_id, aux=None):
        try:
            return self._read_once(header, offset, length, kind, message_id, aux)
        except SpoolCorrupt:
            # A page read while a worker wrote it may be old: dropped, and read from the disk.
            self.forget_cache()
            return self._read_once(header, offset, length, kind, message_id, aux)

    def _read_once(self, header, uint32_t offset, uint32_t length, uint32_t kind, uint64_t message_id, aux):
        cdef spool_record record
        cdef bytes octets
        cdef const uint8_t *at
        cdef uint64_t octets_count = SPOOL_RECORD_OCTETS + <uint64_t>length
        cdef uint32_t salt = header.salt
        cdef bint is_valid
        where = f"segment {header.serial} offset {offset}"
        if offset < SPOOL_HEADER_OCTETS or offset % 8 != 0 or offset + spool_record_size(length) > header.segment_octets:
            raise SpoolCorrupt(f"{where}: no record can lie there")
        try:
            octets = os.pread(self.fd, octets_count, offset)
        except OSError as error:
            raise_unreadable(error, f"{where}: the record")
        if <uint64_t>len(octets) != octets_count:
            raise SpoolCorrupt(f"{where}: the file ends before")
        at = <const uint8_t *>PyBytes_AS_STRING(octets)
        with nogil:
            is_valid = spool_record_decode(at, &record) and record.salt == salt and record.length == length \
                and crc32c(spool_record_crc_header(at), at + SPOOL_RECORD_OCTETS, length) == record.crc
        if not is_valid:
            raise SpoolCorrupt(f"{where}: the record does not match its checksum")
        if record.kind != kind or record.id != message_id or (aux is not None and record.aux != aux):
            raise SpoolCorrupt(f"{where}: another record lies there")
        return octets[SPOOL_RECORD_OCTETS:]

    def first_salt(self):
        cdef spool_record record
        cdef bytes octets
        try:
            octets = os.pread(self.fd, SPOOL_RECORD_OCTETS, SPOOL_HEADER_OCTETS)
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            return 0        # the header may be good all the same
        if len(octets) == SPOOL_RECORD_OCTETS and spool_record_decode(<const uint8_t *>PyBytes_AS_STRING(octets), &record):
            return record.salt
        return 0

    def forget_cache(self):
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
