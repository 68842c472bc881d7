from libc.stdint cimport uint8_t, uint32_t, uint64_t
from angarium.model.octets cimport octets
from angarium.smtp.csmtp cimport smtp_data_machine
from angarium.smtp.server_settings cimport ServerSettings

cdef enum reader_result:
    READER_MORE = 0
    READER_END                      # the end of data was consumed
    READER_FAR_TOO_BIG              # so far over the limit that its end is not worth waiting for

cdef enum:
    # What one read may add to a run that is full: who streams reads no more at a time than that.
    RUN_SLACK_OCTETS = 64 << 10

cdef struct message_reader:
    smtp_data_machine machine
    octets *body                    # owned; NULL while nothing is kept
    uint64_t max_octets
    uint64_t give_up_octets
    uint32_t run_octets
    bint is_keeping                 # octets are stored, not only read
    bint is_too_big

# Takes over `body`, which may hold the trace field already.
cdef void reader_begin(message_reader *self, octets *body, ServerSettings settings, bint is_chunking, bint is_binary) noexcept
# Gives the body back. Harmless before reader_begin.
cdef void reader_drop(message_reader *self) noexcept
# Consumes *at .. stop, or less when the message ends before.
cdef reader_result reader_push(message_reader *self, const uint8_t **at, const uint8_t *stop) noexcept
# BDAT: so many octets were announced; BDAT LAST: all of them are in.
cdef void reader_expect(message_reader *self, uint64_t octet_count) noexcept
cdef void reader_end_chunks(message_reader *self) noexcept
# None, or the reply that refuses the message.
cdef bytes reader_fault(const message_reader *self)


cdef inline bint reader_has_run(const message_reader *self) noexcept:
    return self.body != NULL and self.body.length >= self.run_octets
