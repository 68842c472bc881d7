# The states of a server session, and which command may come in which: the table, nothing that acts on it.
#
# Rules (RFC 5321 §4.1.4, §4.1.1.2-4.1.1.4; RFC 3030 §2 for BDAT):
#   1. Nobody speaks before our greeting.
#   2. MAIL needs HELO or EHLO first; MAIL inside a transaction is nested and refused; the transaction goes on.
#   3. RCPT needs MAIL. DATA and BDAT need a RCPT that was accepted.
#   4. After the first BDAT of a message only BDAT goes on with it; DATA, MAIL and RCPT are out of order.
#   5. RSET, HELO and EHLO end a transaction anywhere in command phase. NOOP, HELP, VRFY, EXPN and QUIT may always come.
#   6. Between end of data and its answer nothing is read: what was pipelined waits.
#   7. STARTTLS needs HELO or EHLO, and no transaction (RFC 3207 §4); after it the session begins anew, in START.
#   8. AUTH needs EHLO and no transaction (RFC 4954 §4); until its exchange ends lines are responses, not commands.
#   9. XCLIENT, XFORWARD and ETRN may come where no transaction is open (XCLIENT_README; RFC 1985 §4). XCLIENT begins the
#      session anew, in START, or in READY when it says HELO for the client.
#  10. After a skip (over-long line, chunk of a refused BDAT) the session goes on in the state kept aside.
#
#                  HELO/EHLO  STARTTLS AUTH   MAIL   RCPT   DATA   BDAT   RSET   others
#   CONNECTED      early      early    early  early  early  early  early  early  early
#   START          READY      helo     helo   helo   mail   mail   mail   same   same
#   READY          READY      START    AUTH   MAIL   mail   mail   mail   same   same
#   MAIL           READY      nested   nested nested RCPT   rcpt   rcpt   READY  same
#   RCPT           READY      nested   nested nested RCPT   DATA   CHUNK  READY  same
#   BETWEEN_CHUNKS READY      nested   nested nested chunks chunks CHUNK  READY  same
#
# Capitals: the state after it was accepted. Small letters: the server_check below, refused, the state stays.
from libc.stdint cimport uint8_t
from angarium.smtp.csmtp cimport (
    SMTP_VERB_AUTH, SMTP_VERB_BDAT, SMTP_VERB_DATA, SMTP_VERB_ETRN, SMTP_VERB_MAIL, SMTP_VERB_RCPT, SMTP_VERB_STARTTLS,
    SMTP_VERB_XCLIENT, SMTP_VERB_XFORWARD,
)


cdef enum server_state:
    SERVER_CONNECTED = 0        # accepted, greeting not said
    SERVER_START                # greeted; neither HELO nor EHLO yet
    SERVER_READY                # HELO or EHLO said; no transaction
    SERVER_AUTH                 # inside an AUTH exchange: the next line is a response
    SERVER_MAIL                 # reverse-path accepted; no forward-path yet
    SERVER_RCPT                 # one forward-path or more
    SERVER_BETWEEN_CHUNKS       # a BDAT chunk is in, LAST was not said
    SERVER_CHUNK                # inside the octets of a chunk
    SERVER_DATA                 # 354 said: all input is message data
    SERVER_COMMITTING           # end of data; its answer is being made
    SERVER_SKIP_LINE            # in the rest of an over-long command line
    SERVER_SKIP_CHUNK           # in the octets of a chunk whose BDAT was refused
    SERVER_CLOSED               # the last reply was said


cdef enum server_check:
    CHECK_MAY = 0
    CHECK_NEEDS_HELO
    CHECK_NEEDS_MAIL
    CHECK_NEEDS_RCPT
    CHECK_IS_NESTED
    CHECK_IN_CHUNKS


cdef inline server_check server_may_come(uint8_t state, uint8_t verb) noexcept nogil:
    if verb == SMTP_VERB_MAIL or verb == SMTP_VERB_AUTH or verb == SMTP_VERB_STARTTLS:
        if state == SERVER_START:
            return CHECK_NEEDS_HELO
        return CHECK_MAY if state == SERVER_READY else CHECK_IS_NESTED
    if verb != SMTP_VERB_RCPT and verb != SMTP_VERB_DATA and verb != SMTP_VERB_BDAT:
        if verb == SMTP_VERB_XCLIENT or verb == SMTP_VERB_XFORWARD or verb == SMTP_VERB_ETRN:
            return CHECK_MAY if state < SERVER_MAIL else CHECK_IS_NESTED
        return CHECK_MAY
    if state < SERVER_MAIL:
        return CHECK_NEEDS_MAIL
    if state == SERVER_BETWEEN_CHUNKS:
        return CHECK_MAY if verb == SMTP_VERB_BDAT else CHECK_IN_CHUNKS
    if verb == SMTP_VERB_RCPT or state == SERVER_RCPT:
        return CHECK_MAY
    return CHECK_NEEDS_RCPT
