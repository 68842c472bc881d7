# What a server session says and allows, compiled once: replies with our name in them, limits. No policy, no state.
cimport cython
from libc.stdint cimport uint32_t
from angarium.smtp.csmtp cimport *
from angarium.smtp.refusal_ids cimport RefusalIds

from angarium.smtp import limits, reasons, replies

# RFC 2920 §3.1: these end a group, because what they answer decides how the client goes on. (QUIT too: it closes.)
cdef uint32_t ENDS_GROUP = (1 << SMTP_VERB_EHLO | 1 << SMTP_VERB_HELO | 1 << SMTP_VERB_LHLO | 1 << SMTP_VERB_XCLIENT
                            | 1 << SMTP_VERB_DATA | 1 << SMTP_VERB_VRFY | 1 << SMTP_VERB_EXPN | 1 << SMTP_VERB_NOOP | 1 << SMTP_VERB_AUTH)


@cython.final
cdef class ServerSettings:
    def __init__(self, hostname, *, max_message_octets=50 << 20, max_recipients=1000, max_line_octets=2048,
                 max_errors=20, starttls=False, requires_tls=False, requiretls=False, run_octets=128 << 10,
                 command_timeout_s=limits.SERVER_TIMEOUT_S, block_timeout_s=limits.DATA_BLOCK_TIMEOUT_S,
                 auth_required=False, lmtp=False, must_qualify=False, completion=None, RefusalIds refusal_ids=None,
                 tells_refusal_ids=False, max_junk=100, binarymime=False, priority=False,
                 deliver_by_minimum_s=-1, hold_max_s=0, no_soliciting=None, max_messages=0, announces_limits=False,
                 max_refused_recipients=20, size=True, pipelining=True, eightbitmime=True, smtputf8=True, chunking=True,
                 dsn=True, vrfy=True):
        cdef bytes name = hostname.encode("ascii") if isinstance(hostname, str) else hostname
        self.hostname = name
        self.max_message_octets = max_message_octets
        # A client that did not say SIZE cannot know; four times and 16 MiB of patience let nearly all of them
        # read the 552 at the true end, and bound what a flood costs.
        self.give_up_octets = 4 * self.max_message_octets + (16 << 20)
        self.max_recipients = max_recipients
        self.max_line_octets = max_line_octets
        self.max_errors = max_errors
        self.max_junk = max_junk
        self.max_refused_recipients = max_refused_recipients
        self.starttls = starttls
        self.requires_tls = requires_tls
        self.requiretls = requiretls
        self.run_octets = run_octets
        self.command_timeout_s = command_timeout_s
        self.block_timeout_s = block_timeout_s
        self.size = size
        self.eightbitmime = eightbitmime
        self.smtputf8 = smtputf8
        self.chunking = chunking
        self.dsn = dsn
        self.vrfy = vrfy
        self.ends_group = ENDS_GROUP if pipelining else <uint32_t>EVERY_VERB
        self.binarymime = binarymime
        self.priority = priority
        self.deliver_by_minimum_s = deliver_by_minimum_s
        self.hold_max_s = hold_max_s
        self.no_soliciting = no_soliciting.encode("ascii") if isinstance(no_soliciting, str) else no_soliciting
        # RFC 3865 §2.4: the keywords that are in effect are echoed.
        self.solicitation_reply = replies.SOLICITATION % (self.no_soliciting or b"")
        self.max_messages = max_messages
        self.greeting = (replies.LMTP_GREETING if lmtp else replies.GREETING) % name
        self.helo_reply = replies.HELO_OK % name
        self.quit_reply = replies.QUIT_OK % name
        self.timeout_reply = replies.TIMEOUT % name
        self.slow_reply = replies.TOO_SLOW % name
        self.shutdown_reply = replies.SHUTTING_DOWN % name
        self.errors_reply = replies.TOO_MANY_ERRORS % name
        self.refused_rcpt_reply = replies.TOO_MANY_REFUSED_RECIPIENTS % name
        self.trouble_reply = replies.INTERNAL_ERROR % name
        self.too_many_reply = replies.GREETING_TOO_MANY % name
        lines = [name]
        lines += [line for is_offered, line in (
            (size, b"SIZE %d" % max_message_octets), (pipelining, b"PIPELINING"), (eightbitmime, b"8BITMIME"),
            (smtputf8, b"SMTPUTF8"), (chunking, b"CHUNKING"), (True, b"ENHANCEDSTATUSCODES"), (dsn, b"DSN"),
        ) if is_offered]
        if binarymime:
            lines.append(b"BINARYMIME")
        if deliver_by_minimum_s >= 0:
            lines.append(b"DELIVERBY %d" % deliver_by_minimum_s if deliver_by_minimum_s else b"DELIVERBY")
        if priority:
            lines.append(b"MT-PRIORITY")
        if self.no_soliciting is not None:
            lines.append(b"NO-SOLICITING " + self.no_soliciting if self.no_soliciting else b"NO-SOLICITING")
        if announces_limits:        # RFC 9422: what is enforced, and nothing else
            lines.append((b"LIMITS MAILMAX=%d " % max_messages if max_messages else b"LIMITS ")
                         + b"RCPTMAX=%d" % max_recipients)
        self.ehlo_reply = b"".join(b"250-" + line + b"\r\n" for line in lines) + b"250 HELP\r\n"
        self.ehlo_starttls_reply = self.ehlo_reply.replace(b"250 HELP", b"250-STARTTLS\r\n250 HELP")
        self.ehlo_tls_reply = (self.ehlo_reply.replace(b"250 HELP", b"250-REQUIRETLS\r\n250 HELP") if requiretls
                               else self.ehlo_reply)
        self.auth_required = auth_required
        self.is_lmtp = lmtp
        self.path_flags = SMTP_PATH_UNQUALIFIED if must_qualify else 0
        self.completion = completion
        self.refusal_ids = refusal_ids
        self.tells_refusal_ids = tells_refusal_ids and refusal_ids is not None
        self.refusal_words = reasons.words_of_replies(name)
