"""SASL mechanisms, the client's half: challenges in, responses out. No socket, no file, no clock.

A mechanism is a generator: it yields its responses and is sent challenges; Derive, which it may yield as well, is work
of tens of milliseconds that whoever runs it does where nobody waits, and sends back. It returns when nothing more may
come but success, and raises Fault for what the server must not say.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Collection, Generator
from typing import Final, Protocol

from angarium.model.errors import AngariumError, LocalProtocolError
from angarium.sasl.login_options import ClientMechanism, LoginOptions
from angarium.sasl.preparation import saslprep
from angarium.sasl.scram import make_nonce

# RFC 7677 §4 asks servers for 4096 at least: with fewer, what we say could be tried against all words of a dictionary.
# The upper bound is judged: seconds of CPU, and OWASP asks for 600,000.
ITERATIONS_LEAST: Final = 4096
ITERATIONS_MOST: Final = 5_000_000
_KEYS_KEPT: Final = 8           # a server's salt for us changes when the password does, and servers may differ
_SALT_OCTETS: Final = 1024

_SERVER_FIRST: Final = re.compile(
    rb"r=(?P<nonce>[!-+\--~]+),s=(?P<salt>[A-Za-z0-9+/=]+),i=(?P<iterations>[1-9]\d{0,9})(?:,[A-Za-z]=[^,\0]*)*"
)
_SERVER_FINAL: Final = re.compile(rb"(?P<kind>[ve])=(?P<value>[^,]*)(?:,[A-Za-z]=[^,\0]*)*")


class Fault(AngariumError):
    """The exchange cannot go on; the text says why, and holds no secret."""


class ClientChannel(Protocol):
    """What a mechanism may know of the TLS below (tls/client.pyx)."""

    @property
    def has_own_certificate(self) -> bool: ...

    def channel_binding(self, kind: str) -> bytes | None: ...


class Credentials:
    """What proves who we are: made by logins.py. Its text never tells the secret.

    is_cached  of a token that is fetched: it was there before whoever asked last.
    keys       of SCRAM, by (salt, iterations): nobody derives them twice (RFC 5802 §5.1 lets a client keep
               them).
    """

    __slots__ = ("is_cached", "keys", "options", "secret")

    def __init__(self, options: LoginOptions, secret: str) -> None:
        self.options = options
        self.secret = secret
        self.is_cached = False
        self.keys: dict[tuple[bytes, int], tuple[bytes, bytes]] = {}

    def __repr__(self) -> str:
        return f"Credentials({self.options.user!r})"


class Derive:
    """Client key and server key of SCRAM (RFC 5802 §3): compute() takes the CPU that the server asks for."""

    def __init__(self, credentials: Credentials, salt: bytes, iterations: int) -> None:
        self._credentials = credentials
        self._place = (salt, iterations)

    def compute(self) -> tuple[bytes, bytes]:
        """Raises Fault. In a thread, if need be; keep() then."""
        try:
            password = saslprep(self._credentials.secret)
        except ValueError as error:
            raise Fault(f"the password cannot be used with SCRAM: {error}") from None
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), *self._place)
        return _hmac(salted, b"Client Key"), _hmac(salted, b"Server Key")

    def keep(self, keys: tuple[bytes, bytes]) -> None:
        kept = self._credentials.keys
        while len(kept) >= _KEYS_KEPT:
            del kept[next(iter(kept))]
        kept[self._place] = keys


Response = bytes | Derive
Mechanism = Generator[Response | None, bytes | tuple[bytes, bytes], None]


def _external(credentials: Credentials, channel: ClientChannel | None, offered: Collection[str]) -> Mechanism:
    """RFC 4422 appendix A: an authorization identity, or none: whoever the certificate stands for."""
    yield credentials.options.user.encode()


def _plain(credentials: Credentials, channel: ClientChannel | None, offered: Collection[str]) -> Mechanism:
    """RFC 4616 §2, without an authorization identity."""
    yield b"\0" + credentials.options.user.encode() + b"\0" + credentials.secret.encode()


def _login(credentials: Credentials, channel: ClientChannel | None, offered: Collection[str]) -> Mechanism:
    """draft-murchison-sasl-login-00: two prompts, whose words mean nothing."""
    yield None
    yield credentials.options.user.encode()
    yield credentials.secret.encode()


def _oauthbearer(credentials: Credentials, channel: ClientChannel | None, offered: Collection[str]) -> Mechanism:
    """RFC 7628 §3.1."""
    user = _sasl_name(credentials.options.user)
    reason = yield b"n,a=%b,\x01auth=Bearer %b\x01\x01" % (user, credentials.secret.encode())
    yield from _token_refused(reason, b"\x01")


def _xoauth2(credentials: Credentials, channel: ClientChannel | None, offered: Collection[str]) -> Mechanism:
    """As Google describes it."""
    reason = yield b"user=%b\x01auth=Bearer %b\x01\x01" % (
        credentials.options.user.encode(),
        credentials.secret.encode(),
    )
    yield from _token_refused(reason, b"")


def _token_refused(reason: object, answer: bytes) -> Mechanism:
    """A challenge is bad news: JSON that is to be answered before the refusal comes (RFC 7628 §3.2.3)."""
    assert isinstance(reason, bytes)
    yield answer
    raise Fault("the host goes on after its error")


def _scram(credentials: Credentials, channel: ClientChannel | None, offered: Collection[str]) -> Mechanism:
    """The server could bind channels, or says so; we do not, or cannot (RFC 5802 §6)."""
    can_bind = channel is not None and _binding_of(channel) is not None
    misses = "SCRAM-SHA-256-PLUS" in credentials.options.usable and "SCRAM-SHA-256-PLUS" not in offered
    return (yield from _scram_with(credentials, b"y" if can_bind and misses else b"n", b""))


def _scram_plus(credentials: Credentials, channel: ClientChannel | None, offered: Collection[str]) -> Mechanism:
    found = _binding_of(channel) if channel is not None else None
    if found is None:
        raise Fault("there is no TLS to bind to")
    kind, binding = found
    return (yield from _scram_with(credentials, b"p=" + kind.encode(), binding))


def _scram_with(credentials: Credentials, flag: bytes, binding: bytes) -> Mechanism:
    """RFC 5802 §5, RFC 7677."""
    header = flag + b",,"
    try:
        name = _sasl_name(saslprep(credentials.options.user))
    except ValueError as error:
        raise Fault(f"the user cannot be used with SCRAM: {error}") from None
    nonce = make_nonce()
    bare = b"n=%b,r=%b" % (name, nonce)
    server_first = _octets((yield header + bare))
    first = _SERVER_FIRST.fullmatch(server_first)
    if first is None or len(first["salt"]) > _SALT_OCTETS:
        raise Fault("a SCRAM challenge that is malformed")
    if not first["nonce"].startswith(nonce) or first["nonce"] == nonce:
        raise Fault("a SCRAM challenge that does not go with our nonce")
    iterations = int(first["iterations"])
    if not ITERATIONS_LEAST <= iterations <= ITERATIONS_MOST:
        raise Fault(f"SCRAM with {iterations} iterations: between {ITERATIONS_LEAST} and {ITERATIONS_MOST} are taken")
    salt = _decoded(first["salt"])
    keys = credentials.keys.get((salt, iterations))
    if keys is None:
        found = yield Derive(credentials, salt, iterations)
        assert isinstance(found, tuple)
        keys = found
    client_key, server_key = keys
    without_proof = b"c=%b,r=%b" % (base64.b64encode(header + binding), first["nonce"])
    auth_message = b",".join((bare, server_first, without_proof))
    signature = _hmac(hashlib.sha256(client_key).digest(), auth_message)
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    server_final = _octets((yield without_proof + b",p=" + base64.b64encode(proof)))
    final = _SERVER_FINAL.fullmatch(server_final)
    if final is None:
        raise Fault("a SCRAM challenge that is malformed")
    if final["kind"] == b"e":
        raise Fault(f"SCRAM: {_shown(final['value'])}")
    if not hmac.compare_digest(_decoded(final["value"]), _hmac(server_key, auth_message)):
        raise Fault("the host does not know the password itself: it only pretends to be who it is")
    yield b""           # what came with success is a challenge in SMTP (RFC 4954 §4)


_BEGIN: Final[dict[str, Callable[[Credentials, ClientChannel | None, Collection[str]], Mechanism]]] = {
    "SCRAM-SHA-256-PLUS": _scram_plus,
    "SCRAM-SHA-256": _scram,
    "EXTERNAL": _external,
    "PLAIN": _plain,
    "LOGIN": _login,
    "OAUTHBEARER": _oauthbearer,
    "XOAUTH2": _xoauth2,
}
_PROVES_SERVER: Final = frozenset(("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"))


def choose(
    credentials: Credentials, offered: Collection[str], channel: ClientChannel | None
) -> ClientMechanism | None:
    """The best of those that the login may use and the host offers. offered: in capitals."""
    for mechanism in credentials.options.usable:
        if mechanism not in offered:
            continue
        if mechanism == "SCRAM-SHA-256-PLUS" and (channel is None or _binding_of(channel) is None):
            continue
        if mechanism == "EXTERNAL" and (channel is None or not channel.has_own_certificate):
            continue
        return mechanism
    return None


class ClientExchange:
    """start() once, then respond() to every challenge and derived() to every Derive; finish() when the server says yes.

    Each raises Fault. offered: mechanisms, in capitals, of which `mechanism` is one.
    """

    def __init__(
        self,
        mechanism: ClientMechanism,
        credentials: Credentials,
        offered: Collection[str],
        channel: ClientChannel | None,
    ) -> None:
        self.mechanism = mechanism
        # Of a host that says why it takes no token: for people.
        self.explanation = ""
        self._steps = _BEGIN[mechanism](credentials, channel, offered)
        self._derive: Derive | None = None
        self._is_over = False

    def start(self) -> bytes | None:
        """The initial response; None: the mechanism has none."""
        response = next(self._steps)
        assert not isinstance(response, Derive)
        return response

    def respond(self, challenge: bytes | None) -> Response:
        """challenge  None: what came was not base64."""
        if challenge is None:
            raise Fault("a challenge that is not base64")
        if self.mechanism in ("OAUTHBEARER", "XOAUTH2"):
            self.explanation = _shown(challenge)
        return self._step(challenge)

    def derived(self, keys: tuple[bytes, bytes]) -> bytes:
        """What Derive.compute() has returned."""
        if self._derive is None:
            raise LocalProtocolError("nothing was to be derived")
        self._derive.keep(keys)
        self._derive = None
        response = self._step(keys)
        assert isinstance(response, bytes)
        return response

    def finish(self) -> None:
        """The server says that we are in. It must have proved by then what it can prove."""
        if self.mechanism in _PROVES_SERVER and not self._is_over:
            raise Fault("the host says yes without having shown that it knows the password itself")

    def _step(self, given: bytes | tuple[bytes, bytes]) -> Response:
        try:
            response = self._steps.send(given)
        except StopIteration:
            raise Fault("a challenge where there is nothing more to say") from None
        assert response is not None
        if isinstance(response, Derive):
            self._derive = response
        # The only empty response of SCRAM is its last.
        self._is_over = response == b""
        return response


def _binding_of(channel: ClientChannel) -> tuple[str, bytes] | None:
    """RFC 9266 §4.2: the exporter is the one to use where there is one."""
    for kind in ("tls-exporter", "tls-server-end-point"):
        binding = channel.channel_binding(kind)
        if binding is not None:
            return kind, binding
    return None


def _octets(given: bytes | tuple[bytes, bytes]) -> bytes:
    assert isinstance(given, bytes)
    return given


def _sasl_name(name: str) -> bytes:
    """saslname of RFC 5801 §4."""
    return name.replace("=", "=3D").replace(",", "=2C").encode()


def _decoded(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise Fault("a SCRAM challenge that is malformed") from None


def _shown(octets: bytes) -> str:
    """What a peer says, for a log."""
    text = octets[:200].decode("utf-8", "replace")
    return "".join(each if each.isprintable() else "?" for each in text)


def _hmac(key: bytes, octets: bytes) -> bytes:
    return hmac.digest(key, octets, "sha256")
