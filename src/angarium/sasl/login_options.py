"""[login.NAME]: who we are to other hosts."""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

from angarium.model.plan import Host, Site
from angarium.model.units import Duration
from angarium.resolver.domain_name import to_a_labels
from angarium.sasl.options import is_good_url
from angarium.sasl.preparation import PASSWORD_OCTETS

ClientMechanism = Literal[
    "EXTERNAL", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2"
]  # fmt: skip

# Best first: the password never leaves, then it does; of tokens the one that an RFC describes. EXTERNAL goes before
# them all: nothing secret is said.
WITH_PASSWORD: Final[tuple[ClientMechanism, ...]] = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN")
WITH_TOKEN: Final[tuple[ClientMechanism, ...]] = ("OAUTHBEARER", "XOAUTH2")
# Keys of LoginOptions, of which at most one says what the secret is.
PROOFS: Final = ("password_file", "token_file", "token_command", "token_endpoint")
ALL_MECHANISMS: Final = frozenset(get_args(ClientMechanism))


class TokenEndpointOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where access tokens come from (RFC 6749); nobody but owner and group may read the files:

    url                 https://, or http:// to this machine.
    grant               refresh_token (§6) needs refresh_token_file, client_credentials (§4.4) client_secret_file.
    client_id           who we are to the endpoint. client_secret_file: what proves it.
    refresh_token_file  its first line; a new one that the endpoint gives is written there.
    scope               asked for; "": what the endpoint gives without.
    client_auth         where client_id and secret stand: in the body, or in Authorization: Basic (§2.3.1).
    ca                  PEM file of authorities for its certificate; "": the system's.
    """

    url: str
    grant: Literal["refresh_token", "client_credentials"]
    client_id: str
    client_secret_file: str = ""
    refresh_token_file: str = ""
    scope: str = ""
    client_auth: Literal["body", "basic"] = "body"
    ca: str = ""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")) or not is_good_url(self.url):
            raise ValueError(f'url: "{self.url}": expected "https://host/path" or "http://127.0.0.1:port/path"')
        if not self.client_id or not self.client_id.isprintable():
            raise ValueError("client_id: printable characters")
        if not self.scope.isprintable():
            raise ValueError("scope: printable characters")
        for key in ("client_secret_file", "refresh_token_file", "ca"):
            check_path(key, getattr(self, key))
        if self.grant == "refresh_token" and not self.refresh_token_file:
            raise ValueError('refresh_token_file: must be set with grant = "refresh_token"')
        if self.grant == "client_credentials":
            if not self.client_secret_file:
                raise ValueError('client_secret_file: must be set with grant = "client_credentials"')
            if self.refresh_token_file:
                raise ValueError('refresh_token_file: does nothing with grant = "client_credentials"')
        if self.client_auth == "basic" and not self.client_secret_file:
            raise ValueError('client_secret_file: must be set with client_auth = "basic"')


class LoginOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """user  to the other host; may be left out where only the certificate is shown. What proves it is one of these, or
    the certificate alone; nobody but owner and group may read a file, and a changed one is read at the next connection:

    password_file     absolute path; the first line counts. token_file: likewise, of a bearer token (RFC 6750).
    token_command     a command and its arguments, that writes a token; token_endpoint: see TokenEndpointOptions.
    token_timeout     for one run of the command, or one answer of the endpoint.
    token_time        so long a token is kept of which nobody says how long it lasts; 0s: not at all.
    external          EXTERNAL where the host offers it and we have a certificate ([shaping.default] tls_certificate):
                      for `user`, or, without, for whomever the host takes the certificate for.
    mechanisms        those that may be used, best first; []: all that fit.
    hosts             that may be told besides those whose names are known for sure: "mx.example.com", "*.example.com".
    allow_unverified  any certificate will do.
    allow_clear       and none: without TLS where the policy of the way lets mail go without it.
    submitter         AUTH= of MAIL names the mailbox that has authenticated to us (RFC 4954 §5), not nobody.
    """

    user: str = ""
    password_file: str = ""
    token_file: str = ""
    token_command: list[str] = []
    token_endpoint: TokenEndpointOptions | None = None
    token_timeout: Duration = Duration(20)
    token_time: Duration = Duration(300)
    external: bool = False
    mechanisms: list[ClientMechanism] = []
    hosts: list[str] = []
    allow_unverified: bool = False
    allow_clear: bool = False
    submitter: bool = False

    def __post_init__(self) -> None:
        proofs = [key for key in PROOFS if getattr(self, key)]
        if len(proofs) > 1 or not (proofs or self.external):
            others = ", ".join(PROOFS[1:])
            raise ValueError(f"{PROOFS[0]}: either it or one of {others} must be set, or external = true alone")
        octets = len(self.user.encode())
        if octets > PASSWORD_OCTETS or (proofs and not octets) or not self.user.isprintable():
            raise ValueError(f"user: 1 to {PASSWORD_OCTETS} octets of printable characters")
        if not proofs and self.allow_clear:
            raise ValueError("allow_clear: without TLS there is no certificate for external to go by")
        for key in ("password_file", "token_file"):
            check_path(key, getattr(self, key))
        if self.token_command:
            check_path("token_command[0]", self.token_command[0] or "-")
            if any("\0" in each for each in self.token_command):
                raise ValueError("token_command: a NUL stands in it")
        if not 0.1 <= self.token_timeout <= 120:
            raise ValueError("token_timeout: between 0.1 and 120 seconds")
        if not 0 <= self.token_time <= 86_400:
            raise ValueError("token_time: at most a day")
        for index, mechanism in enumerate(self.mechanisms):
            if mechanism not in self._fit:
                what = " and ".join([*proofs, *(["external"] if self.external else [])])
                raise ValueError(f'mechanisms[{index}]: "{mechanism}" does nothing with {what}: {", ".join(self._fit)}')
        for index, pattern in enumerate(self.hosts):
            try:
                if "*" in pattern.removeprefix("*."):
                    raise ValueError
                to_a_labels(pattern.removeprefix("*.").encode())
            except ValueError:
                raise ValueError(f'hosts[{index}]: "{pattern}" is neither a host name nor "*." and a domain') from None

    @property
    def usable(self) -> tuple[ClientMechanism, ...]:
        """Mechanisms, best first."""
        return tuple(self.mechanisms) or self._fit

    @property
    def has_token(self) -> bool:
        return bool(self.token_file) or self.fetches_token

    @property
    def fetches_token(self) -> bool:
        """It is no file that has it."""
        return bool(self.token_command) or self.token_endpoint is not None

    @property
    def _fit(self) -> tuple[ClientMechanism, ...]:
        with_secret = WITH_PASSWORD if self.password_file else WITH_TOKEN if self.has_token else ()
        return ("EXTERNAL", *with_secret) if self.external else with_secret

    def may_be_told(self, site: Site, host: Host) -> bool:
        """Whether the name that a certificate is verified for is known for sure; or does not matter."""
        if self.allow_unverified or self.allow_clear or site.is_located_securely or self.names_host(host.name):
            return True
        return site.sts is not None and site.sts.mode == "enforce"

    def names_host(self, host: str) -> bool:
        """host  in A-labels and lower case."""
        for pattern in self.hosts:
            name = to_a_labels(pattern.removeprefix("*.").encode())
            if host == name if not pattern.startswith("*.") else host.endswith("." + name):
                return True
        return False


def check_path(key: str, path: str) -> None:
    """Raises ValueError for what is neither absolute nor ""."""
    if path and (not path.startswith("/") or not path.isprintable()):
        raise ValueError(f'{key}: "{path}" is not an absolute path')
