"""Numbers from RFCs, each with its section; C mirrors are tested against these."""

# RFC 5321 §4.5.3.1
LOCAL_PART_OCTETS = 64
DOMAIN_OCTETS = 255
LABEL_OCTETS = 63           # RFC 1035 §2.3.4
PATH_OCTETS = 256
COMMAND_LINE_OCTETS = 512   # with CRLF
MAIL_LINE_OCTETS = 2048     # MAIL and RCPT grow by extensions (RFC 3461 §5: +500 each, 1870, 6531): one cap
REPLY_LINE_OCTETS = 512
AUTH_LINE_OCTETS = 12288    # RFC 4954 §4: responses; the AUTH command too, as its initial response may be a token
TEXT_LINE_OCTETS = 1000     # §4.5.3.1.6, with CRLF
RECIPIENTS_MINIMUM = 100    # §4.5.3.1.8

# RFC 5321 §4.5.3.2: how long a client waits
GREETING_TIMEOUT_S = 300
MAIL_TIMEOUT_S = 300
RCPT_TIMEOUT_S = 300
DATA_INITIATION_TIMEOUT_S = 120
DATA_BLOCK_TIMEOUT_S = 180
DATA_TERMINATION_TIMEOUT_S = 600
# Of TLS, and for the reply to STARTTLS: judged, RFC 3207 names none. What hangs there may be tried in clear.
HANDSHAKE_TIMEOUT_S = 30
# §4.5.3.2.7: how long a server waits for the next command
SERVER_TIMEOUT_S = 300

# RFC 5321 §6.3: trace fields before a message is called a loop (at least 100)
RECEIVED_FIELDS_MAXIMUM = 100

# RFC 5321 §4.5.4.1
RETRY_INTERVAL_S = 1800
GIVE_UP_S = 4 * 86400
