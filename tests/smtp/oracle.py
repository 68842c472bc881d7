"""Slow, obvious parsers: what the C machines must agree with.

Written from the ABNF as regular expressions and whole-string operations, so that they share no idea with
the state machines they judge. No pieces, no speed, no limits but the RFCs'.
"""

import ipaddress
import re

# -- RFC 5321 §4.1.2, §4.1.3; RFC 6531 §3.3 --

ATEXT = rb"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]"
UTF8_NON_ASCII = rb"[\x80-\xff]"    # taken octet by octet; well_formed() judges the whole
LET_DIG = rb"[A-Za-z0-9]"
IPV6_GROUP = re.compile(rb"[0-9A-Fa-f]{1,4}")
SNUM = re.compile(rb"[0-9]{1,3}")


def _grammar(utf8: bool) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    more = rb"|" + UTF8_NON_ASCII if utf8 else b""
    atom = rb"(?:" + ATEXT + more + rb")+"
    dot_string = atom + rb"(?:\." + atom + rb")*"
    quoted_string = rb'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e]' + more + rb')*"'
    let_dig = rb"(?:" + LET_DIG + more + rb")"
    sub_domain = let_dig + rb"(?:(?:" + let_dig + rb"|-)*" + let_dig + rb")?"
    domain = sub_domain + rb"(?:\." + sub_domain + rb")*"
    literal = rb"\[(?P<literal>[\x21-\x5a\x5e-\x7e]*)\]"
    local_part = rb"(?P<local>" + dot_string + rb"|" + quoted_string + rb")"
    mailbox = local_part + rb"@(?P<domain>" + domain + rb"|" + literal + rb")"
    route = rb"(?P<route>@" + domain + rb"(?:,@" + domain + rb")*:)?"
    path = rb"<" + route + rb"(?P<mailbox>" + mailbox + rb")>"
    return re.compile(mailbox, re.DOTALL), re.compile(path, re.DOTALL)


GRAMMAR = {utf8: _grammar(utf8) for utf8 in (False, True)}


def well_formed(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def ipv4(text: bytes) -> bool:
    numbers = text.split(b".")
    return len(numbers) == 4 and all(SNUM.fullmatch(n) and int(n) <= 255 for n in numbers)


def ipv6(text: bytes) -> bool:
    """§4.1.3: eight groups, or up to six beside "::"; the last two may be written as IPv4."""
    head, colon, last = text.rpartition(b":")
    if ipv4(last) and colon:
        text = head + b":0:0"       # counts as two groups
    sides = text.split(b"::")
    if len(sides) > 2:
        return False
    groups = [group for side in sides if side for group in side.split(b":")]
    if not all(IPV6_GROUP.fullmatch(group) for group in groups):
        return False
    return len(groups) == 8 if len(sides) == 1 else len(groups) <= 6


def literal(text: bytes) -> bool:
    if text[:5].lower() == b"ipv6:":
        return ipv6(text[5:])
    return ipv4(text) or re.fullmatch(rb"[A-Za-z0-9-]*[A-Za-z0-9]:[\x21-\x5a\x5e-\x7e]+", text) is not None


def _domain_fits(domain: bytes) -> bool:
    if len(domain) > 255:
        return False
    if domain.startswith(b"["):
        return True
    for label in domain.split(b"."):
        longest = 63 if label.isascii() else 59     # "xn--" and an octet per code point at least
        if len(label.decode("utf-8")) > longest:
            return False
    return True


def _is_good(match: re.Match[bytes]) -> bool:
    whole = match[0]
    if not well_formed(whole) or re.search("[\x80-\x9f]", whole.decode("utf-8")):
        return False                # C1 controls: path.h says why
    if match["literal"] is not None and not literal(match["literal"]):
        return False
    return len(match["local"]) <= 64 and _domain_fits(match["domain"])


def mailbox(data: bytes, utf8: bool = False) -> tuple[bytes, bytes] | None:
    """(local-part, domain) or None."""
    match = GRAMMAR[utf8][0].fullmatch(data)
    if match is None or not _is_good(match) or len(data) > 254:
        return None
    return match["local"], match["domain"]


def path(data: bytes, utf8: bool = False) -> tuple[int, bytes, bytes, bytes] | None:
    """(end, mailbox, local-part, domain) of a path at the start of data, or None."""
    match = GRAMMAR[utf8][1].match(data)
    if match is None or not _is_good(match) or match.end() > 256:
        return None
    if match["route"] and not all(_domain_fits(hop[1:]) for hop in match["route"][:-1].split(b",")):
        return None
    return match.end(), match["mailbox"], match["local"], match["domain"]


def is_standard_ipv6(text: str) -> bool:
    """A second opinion. It takes "::" for one group too; leading zeros, which Snum may have, it refuses."""
    try:
        ipaddress.IPv6Address(re.sub(r"(?<=[:.])0+(?=[0-9]+\.)|(?<=\.)0+(?=[0-9])", "", text))
    except ValueError:
        return False
    return True


# -- RFC 5321 §4.1.1 --


def line(data: bytes, limit: int) -> tuple[str, int | None]:
    """(verdict, length of the line); the length is None where only the verdict is promised."""
    for at in range(min(len(data), limit)):
        if data[at] == 0x0A:
            return "bare_lf", at
        if data[at] == 0x0D:
            if at + 2 > limit:
                return "too_long", None
            if at + 1 == len(data):
                return "partial", None
            return ("ok", at) if data[at + 1] == 0x0A else ("bare_cr", at)
    return ("partial", None) if len(data) < limit else ("too_long", None)


PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e]+))?")


def mail_parameters(text: bytes) -> list[tuple[bytes, bytes | None]] | str:
    """Parameters behind a path, or the name of the fault; ASCII only."""
    parameters: list[tuple[bytes, bytes | None]] = []
    for word in text.split(b" "):
        if not word:
            continue
        if len(parameters) == 16:
            return "too_many"
        match = PARAMETER.fullmatch(word)
        if match is None or (match[1].upper() == b"SMTPUTF8" and match[2] is not None):
            return "bad_parameter"
        if match[1].upper() in [keyword.upper() for keyword, _ in parameters]:
            return "twice"
        parameters.append((match[1], match[2]))
    return parameters


def xtext(data: bytes) -> bool:
    return re.fullmatch(rb"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-F]{2})*", data) is not None


def notify(data: bytes) -> frozenset[str] | None:
    words = [word.decode("latin-1") for word in re.split(b",", data)]
    words = [word.upper() if word.isascii() else word for word in words]
    if words == ["NEVER"]:
        return frozenset(words)
    return frozenset(words) if set(words) <= {"SUCCESS", "FAILURE", "DELAY"} else None


# -- RFC 5321 §4.2 --

REPLY_LINE = re.compile(rb"([2-5][0-5][0-9])(?:([ -])([^\r\n]*))?\r\n", re.DOTALL)
STATUS = re.compile(rb"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?:[ \t]|$)", re.DOTALL)


def reply(data: bytes) -> tuple[int, int, tuple[int, int, int], int, bytes] | None:
    """(end, code, enhanced status code, lines, text) of the reply at the start of data, or None."""
    at, code, texts = 0, b"", []
    while match := REPLY_LINE.match(data, at):
        if len(match[0]) > 1000 or len(texts) == 128 or (code and match[1] != code):
            return None
        code, at = match[1], match.end()
        texts.append(match[3] or b"")
        if match[2] == b"-":
            continue
        found = STATUS.match(texts[-1])
        status = (0, 0, 0)
        if found and found[1] == code[:1]:
            status = (int(found[1]), int(found[2]), int(found[3]))
        text = b"\n".join(re.sub(rb"[\x00-\x1f\x7f]", b"?", t.replace(b"\t", b" ")) for t in texts)
        return at, int(code), status, len(texts), text
    return None


# -- RFC 5321 §4.1.1.4, §4.5.2 --


def data_mode(data: bytes) -> tuple[bytes, bytes, bool]:
    """(message so far, rest behind the end of data, has it ended), by cutting at every CRLF."""
    message = []
    lines = data.split(b"\r\n")
    for number, text in enumerate(lines[:-1]):
        if text == b".":
            return b"".join(message), b"\r\n".join(lines[number + 1:]), True
        message.append(text.removeprefix(b".") + b"\r\n")
    unfinished = lines[-1]
    if unfinished != b".\r":        # perhaps the end: held back
        message.append(unfinished.removeprefix(b"."))
    return b"".join(message), b"", False


def judge(message: bytes, line_limit: int, is_end: bool) -> dict[str, object]:
    """What the data machine must say of an un-stuffed message. `is_end`: a CR as last octet is bare."""
    lines = message.split(b"\r\n")
    whole = [text + b"\r\n" for text in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    header = message.split(b"\r\n\r\n")[0] if not message.startswith(b"\r\n") else b""
    faults: list[tuple[int, int, str]] = []     # (offset, rank where two fall on one octet, name)
    for match in re.finditer(rb"(?<!\r)\n", message):
        faults.append((match.start(), 1, "bare_lf"))
    for match in re.finditer(rb"\r(?!\n)" if is_end else rb"\r(?!\n|\Z)", message):
        faults.append((match.start(), 1, "bare_cr"))
    for match in re.finditer(rb"\x00", message):
        faults.append((match.start(), 1, "nul"))
    start = 0
    for text in whole:
        if line_limit and len(text) > line_limit:
            faults.append((start + line_limit, 0, "line_too_long"))
        start += len(text)
    offset, _, fault = min(faults, default=(0, 0, ""))
    return {
        "octets_out": len(message),
        "fault": fault,
        "fault_offset": offset,
        "received_count": sum(text.lower().startswith(b"received:") for text in header.split(b"\r\n")),
        "longest_line": max(map(len, whole), default=0),
        "has_8bit": not message.isascii(),
        "has_dot_line": any(text.startswith(b".") for text in whole),
        "ends_with_crlf": message.endswith(b"\r\n"),
    }


def stuff(message: bytes) -> bytes:
    if message and not message.endswith(b"\r\n"):
        message += b"\r\n"
    return b"".join(b"." + text + b"\r\n" if text.startswith(b".") else text + b"\r\n"
                    for text in message.split(b"\r\n")[:-1]) + b".\r\n"
