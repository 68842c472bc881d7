"""Every reply a server session or the inbound side can say, in one table; no logic.

Each is whole, CRLF included, with its enhanced status code (RFC 2034, 3463). %s stands for our hostname or a
queue id, %d for a number. Why each that refuses is said stands in reasons.py, under the same name. Where RFC 5321
leaves a choice of code, the comment says why.
"""

from __future__ import annotations

# RFC 5321 §3.1, §4.2.3
GREETING = b"220 %s ESMTP Angarium\r\n"
LMTP_GREETING = b"220 %s LMTP Angarium\r\n"
GREETING_TOO_MANY = b"421 4.3.2 %s Too many connections, try again later\r\n"
HELO_OK = b"250 %s\r\n"
QUIT_OK = b"221 2.0.0 %s Bye\r\n"
TIMEOUT = b"421 4.4.2 %s Timeout, closing\r\n"
TOO_SLOW = b"421 4.4.2 %s Message data comes too slowly, closing\r\n"
SHUTTING_DOWN = b"421 4.3.2 %s Shutting down\r\n"
TOO_MANY_ERRORS = b"421 4.7.0 %s Too many errors\r\n"
TOO_MANY_REFUSED_RECIPIENTS = b"421 4.7.0 %s Too many recipients refused\r\n"
INTERNAL_ERROR = b"421 4.3.0 %s Internal error, closing\r\n"
# Of the connection of a listed balancer: nobody is told but the operator.
PROXY_HEADER_BAD = b"500 5.5.2 Not a PROXY header\r\n"
PROXY_HEADER_LATE = b"421 4.4.2 No PROXY header in time\r\n"

MAIL_OK = b"250 2.1.0 Ok\r\n"
RCPT_OK = b"250 2.1.5 Ok\r\n"
DATA_GO = b"354 End data with <CR><LF>.<CR><LF>\r\n"
CHUNK_OK = b"250 2.0.0 Ok: %d octets\r\n"
MESSAGE_OK = b"250 2.0.0 Ok: queued as %s\r\n"
RSET_OK = b"250 2.0.0 Ok\r\n"
NOOP_OK = b"250 2.0.0 Ok\r\n"
VRFY_OK = b"252 2.0.0 Cannot verify, but will take a message and try\r\n"
HELP_OK = b"214 2.0.0 EHLO HELO STARTTLS MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT; see RFC 5321\r\n"

# The line and the verb
UNKNOWN_COMMAND = b"500 5.5.1 Command not recognised\r\n"
NOT_IMPLEMENTED = b"502 5.5.1 Command not implemented\r\n"
SAY_LHLO = b"500 5.5.1 This is LMTP: say LHLO\r\n"
LINE_TOO_LONG = b"500 5.5.2 Command line too long\r\n"
CONTROL_OCTETS = b"500 5.5.2 NUL or control octet in command\r\n"
COMMAND_HAS_8BIT = b"500 5.5.2 Octet above 127 in command\r\n"
BARE_LINE_ENDING = b"521 5.5.2 Bare CR or LF in command; lines end with CRLF\r\n"
NOT_SMTP = b"521 5.5.2 This is an SMTP server\r\n"
HTTP_HERE = b"502 5.5.1 This is an SMTP server, not HTTP\r\n"
SPOKE_TOO_EARLY = b"554 5.5.0 You spoke before the greeting\r\n"
IMPROPER_PIPELINING = b"503 5.5.0 Improper pipelining: wait for the reply to this command\r\n"
IMPROPER_PIPELINING_DATA = b"554 5.5.0 Improper pipelining behind end of data; message refused\r\n"

# Arguments and parameters
SYNTAX = b"501 5.5.4 Syntax error in argument\r\n"
BAD_HELO_NAME = b"501 5.5.4 Not a domain or address literal\r\n"
BAD_PARAMETER = b"501 5.5.4 Syntax error in parameter\r\n"
PARAMETER_TWICE = b"501 5.5.4 Parameter given twice\r\n"
TOO_MANY_PARAMETERS = b"501 5.5.4 Too many parameters\r\n"
BAD_PARAMETER_VALUE = b"501 5.5.4 Bad value of parameter\r\n"
# 555 rather than 504: RFC 5321 §4.1.1.11
UNKNOWN_PARAMETER = b"555 5.5.4 Parameter not recognised or not implemented\r\n"
# 504 rather than 555: the parameter BODY is known, this value of it is not offered (RFC 3030 §3)
NO_BINARYMIME = b"504 5.5.4 BODY=BINARYMIME is not offered\r\n"
BINARYMIME_NEEDS_BDAT = b"503 5.5.1 BODY=BINARYMIME needs BDAT\r\n"
BY_TIME_TOO_SHORT = b"555 5.5.4 By-time is below the announced minimum\r\n"
TWO_HOLDS = b"501 5.5.4 HOLDFOR and HOLDUNTIL exclude each other\r\n"
HOLD_TOO_LONG = b"501 5.5.4 Held longer than the announced maximum\r\n"
HOLD_BEYOND_BY = b"501 5.5.4 Held longer than the by-time allows\r\n"
HOLD_IS_PAST = b"501 5.5.4 HOLDUNTIL is in the past\r\n"
BAD_REVERSE_PATH = b"501 5.1.7 Bad reverse-path\r\n"
REVERSE_PATH_TOO_LONG = b"501 5.1.7 Reverse-path too long\r\n"
BAD_FORWARD_PATH = b"501 5.1.3 Bad forward-path\r\n"
FORWARD_PATH_TOO_LONG = b"501 5.1.3 Forward-path too long\r\n"
NEEDS_SMTPUTF8 = b"553 5.6.7 Address needs SMTPUTF8\r\n"
# 554: RFC 6409 §4.2 asks for it
UNQUALIFIED_SENDER = b"554 5.1.7 Domain of the reverse-path is not fully qualified\r\n"
UNQUALIFIED_RECIPIENT = b"554 5.1.2 Domain of the forward-path is not fully qualified\r\n"

# Order
NEEDS_HELO = b"503 5.5.1 Say EHLO or HELO first\r\n"
NEEDS_MAIL = b"503 5.5.1 MAIL first\r\n"
NEEDS_RCPT = b"503 5.5.1 RCPT first\r\n"
NESTED_MAIL = b"503 5.5.1 A transaction is open; end it or RSET\r\n"
IN_CHUNKS = b"503 5.5.1 A message is coming by BDAT; go on with BDAT or RSET\r\n"
BDAT_NEEDS_EHLO = b"503 5.5.1 BDAT needs EHLO\r\n"
# 554 rather than 503: RCPT was said, and every one was refused (RFC 5321 §3.3)
NO_VALID_RECIPIENTS = b"554 5.5.1 No valid recipients\r\n"
BAD_CHUNK_SIZE = b"501 5.5.4 Bad BDAT size: the end of the chunk is unknown, closing\r\n"

# Limits and policy
TOO_MANY_RECIPIENTS = b"452 4.5.3 Too many recipients\r\n"
MESSAGE_TOO_BIG = b"552 5.3.4 Message too big\r\n"
# Permanent, though unasked in mid-message: 421 would make the client send the same flood again.
MESSAGE_FAR_TOO_BIG = b"552 5.3.4 Message far too big, closing\r\n"
TOO_MANY_MESSAGES = b"452 4.5.3 Too many messages in this session, open another\r\n"
SOLICITATION = b"550 5.7.1 SOLICIT=%s Solicitations of this kind are not taken\r\n"
# RFC 6710 §4.1: X.3.6, then the priority that counts instead.
PRIORITY_CHANGED = b"250 2.3.6 0 Priority is only given to clients that may relay\r\n"
HOLD_NOT_ALLOWED = b"550 5.7.1 Mail is only held for clients that may relay\r\n"
RELAY_DENIED = b"550 5.7.1 Relaying denied\r\n"
LOCAL_PART_ROUTES = b"550 5.7.1 Routing in the local-part is not allowed\r\n"
UNKNOWN_RECIPIENT = b"550 5.1.1 No such recipient here\r\n"
# Of [reports] and [suppression]
NO_REPORT_ADDRESS = b"550 5.1.1 No such address for reports\r\n"
REPORT_APART = b"452 4.5.3 Reports come in a transaction of their own\r\n"
SUPPRESSED = b"550 5.1.1 On the suppression list: earlier mail to this address failed\r\n"
RECIPIENT_TROUBLE = b"451 4.3.0 Recipients cannot be looked up now, try again later\r\n"
CANNOT_ASK_NEXT_HOP = b"451 4.4.1 Recipient cannot be verified now, try again later\r\n"
QUEUE_FULL = b"452 4.3.1 Too much mail waits here, try again later\r\n"
NO_ROOM = b"452 4.3.1 Insufficient storage\r\n"
LOCAL_TROUBLE = b"451 4.3.0 Local error, try again later\r\n"
NO_MEMORY = b"452 4.3.1 Out of memory, try again later\r\n"

# Who may come in. Temporary all: a client's network may be everybody behind one address translator.
MACHINE_FULL = b"421 4.3.2 Too many sessions on this machine, try again later\r\n"
MEMORY_FULL = b"421 4.3.1 No memory for more sessions, try again later\r\n"
NETWORK_CONNECTIONS = b"421 4.7.0 Too many connections from your network at once\r\n"
NETWORK_CONNECTION_RATE = b"421 4.7.0 Too many connections from your network, try again later\r\n"
NETWORK_ERRORS = b"421 4.7.0 Too many errors from your network, try again later\r\n"
NETWORK_MESSAGES = b"450 4.7.0 Too many messages from your network, try again later\r\n"
NETWORK_RECIPIENTS = b"450 4.7.0 Too many recipients from your network, try again later\r\n"
NETWORK_AUTH_ATTEMPTS = b"454 4.7.0 Too many authentication attempts from your network, try again later\r\n"
NETWORK_HANDSHAKES = b"454 4.7.0 Too many TLS handshakes from your network, try again later\r\n"

# TLS (RFC 3207 §4)
STARTTLS_GO = b"220 2.0.0 Ready to start TLS\r\n"
TLS_NOT_NOW = b"454 4.7.0 TLS is not available now\r\n"
TLS_ALREADY = b"503 5.5.1 TLS is active already\r\n"
TLS_REQUIRED = b"530 5.7.0 Say STARTTLS first\r\n"
STARTTLS_PIPELINED = b"554 5.5.0 Octets in clear behind STARTTLS, closing\r\n"

# AUTH (RFC 4954 §4, §6)
AUTH_OK = b"235 2.7.0 Authentication successful\r\n"
AUTH_FAILED = b"535 5.7.8 Authentication credentials invalid\r\n"
AUTH_UNAVAILABLE = b"454 4.7.0 Temporary authentication failure, try again later\r\n"
AUTH_TOO_MANY_FAILURES = b"421 4.7.0 Too many authentication failures, try again later\r\n"
AUTH_CANCELLED = b"501 5.7.0 Authentication cancelled\r\n"
AUTH_BAD_BASE64 = b"501 5.5.2 Not base64\r\n"
AUTH_LINE_TOO_LONG = b"500 5.5.6 Authentication exchange line too long\r\n"
AUTH_UNKNOWN_MECHANISM = b"504 5.5.4 Authentication mechanism not offered\r\n"
AUTH_NEEDS_EHLO = b"503 5.5.1 AUTH needs EHLO\r\n"
AUTH_TWICE = b"503 5.5.1 Already authenticated\r\n"
AUTH_NEEDS_TLS = b"538 5.7.11 Encryption required for authentication\r\n"
AUTH_REQUIRED = b"530 5.7.0 Authentication required\r\n"
SENDER_NOT_OWN = b"553 5.7.1 Reverse-path not allowed to the authenticated identity\r\n"
QUOTA_EXCEEDED = b"451 4.7.1 Quota of the authenticated identity exhausted, try again later\r\n"

# XCLIENT, XFORWARD (Postfix's XCLIENT_README and XFORWARD_README), ETRN (RFC 1985 §5)
XFORWARD_OK = b"250 2.0.0 Ok\r\n"
CLAIM_SYNTAX = b"501 5.5.4 %s\r\n"
ETRN_STARTED = b"250 2.0.0 Queuing for node %s started\r\n"
ETRN_NOTHING = b"251 2.0.0 No messages waiting for node %s\r\n"
ETRN_COUNTED = b"253 2.0.0 %d pending messages for node %s started\r\n"
ETRN_UNABLE = b"458 4.3.0 Unable to queue messages for node %s\r\n"
ETRN_NOT_ALLOWED = b"459 4.7.1 Node %s not allowed\r\n"
ETRN_SYNTAX = b"501 5.5.4 Not a domain\r\n"

# Header sections of submitted messages (RFC 6409 §4.2, §6.1)
HEADER_TOO_BIG = b"554 5.6.0 Message refused: header section too big\r\n"
UNQUALIFIED_HEADER = b"554 5.6.0 Message refused: address without a domain in the header\r\n"
FROM_UNCLEAR = b"554 5.6.0 Message refused: one From field with an address is needed\r\n"
# future_release_field: what FUTURERELEASE says to MAIL comes too late for 501
HOLD_FIELD_UNSEEN = b"554 5.6.0 Message refused: header section with a line that is no field or does not end\r\n"
HOLD_FIELD_UNREADABLE = b"554 5.6.0 Message refused: its time of sending is no date and time with a zone\r\n"
HOLD_FIELD_TWICE = b"554 5.6.0 Message refused: its time of sending is said more than once\r\n"
HOLD_FIELD_TOO_LATE = b"554 5.6.0 Message refused: its time of sending is later than mail is held here\r\n"
HOLD_FIELD_BEYOND_BY = b"554 5.6.0 Message refused: its time of sending is behind its by-time\r\n"
FROM_NOT_OWN = b"553 5.7.1 From field not allowed to the authenticated identity\r\n"

# End of data
BARE_LF = b"554 5.6.0 Message refused: bare LF; lines end with CRLF\r\n"
BARE_CR = b"554 5.6.0 Message refused: bare CR; lines end with CRLF\r\n"
HAS_NUL = b"554 5.6.0 Message refused: NUL octet\r\n"
TEXT_LINE_TOO_LONG = b"554 5.6.0 Message refused: line too long\r\n"
LOOP = b"554 5.4.6 Too many hops: more than 100 Received fields\r\n"
