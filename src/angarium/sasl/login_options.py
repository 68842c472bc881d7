"""[login.NAME]: who we are to other hosts."""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

from angarium.model.plan import Host, Site
from angarium.resolver.domain_name import to_a_labels
from angarium.sasl.preparation import PASSWORD_OCTETS

ClientMechanism = Literal["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2"]

# Best first: the password never leaves, then it does; of tokens the one that an RFC describes.
WITH_PASSWORD: Final[tuple[ClientMechanism, ...]] = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN")
WITH_TOKEN: Final[tuple[ClientMechanism, ...]] = ("OAUTHBEARER", "XOAUTH2")
ALL_MECHANISMS: Final = frozenset(get_args(ClientMechanism))


class LoginOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """user  to the other host. One of the two files holds, in its first line, what proves it; nobody but owner and
    group may read it, and a changed one is read at the next connection:

    password_file     absolute path. token_file: likewise, of a bearer token (RFC 6750).
    mechanisms        those that may be used, best first; []: all that fit.
    hosts             that may be told besides those whose names are known for sure: "mx.example.com", "*.example.com".
    allow_unverified  any certificate will do.
    allow_clear       and none: without TLS where the policy of the way lets mail go without it.
    submitter         AUTH= of MAIL names the mailbox that has authenticated to us (RFC 4954 §5), not nobody.
    """

    user: str
    password_file: str = ""
    token_file: str = ""
    mechanisms: list[ClientMechanism] = []
    hosts: list[str] = []
    allow_unverified: bool = False
    allow_clear: bool = False
    submitter: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.user.encode()) <= PASSWORD_OCTETS or not self.user.isprintable():
            raise ValueError(f"user: 1 to {PASSWORD_OCTETS} octets of printable characters")
        if bool(self.password_file) == bool(self.token_file):
            raise ValueError("password_file: either it or token_file must be set")
        for key in ("password_file", "token_file"):
            path = getattr(self, key)
            if path and (not path.startswith("/") or not path.isprintable()):
                raise ValueError(f'{key}: "{path}" is not an absolute path')
        fit = WITH_TOKEN if self.token_file else WITH_PASSWORD
        for index, mechanism in enumerate(self.mechanisms):
            if mechanism not in fit:
                what = "token_file" if self.token_file else "password_file"
                raise ValueError(f'mechanisms[{index}]: "{mechanism}" does nothing with a {what}: {", ".join(fit)}')
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
        return tuple(self.mechanisms) or (WITH_TOKEN if self.token_file else WITH_PASSWORD)

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
