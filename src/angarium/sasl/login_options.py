"""[login.NAME]: who we are to other hosts."""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

from angarium.model.plan import Host, Site
from angarium.resolver.domain_name import to_a_labels
from angarium.sasl.preparation import PASSWORD_OCTETS

ClientMechanism = Literal[
    "EXTERNAL", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2"
]  # fmt: skip

# Best first: the password never leaves, then it does; of tokens the one that an RFC describes. EXTERNAL goes before
# them all: nothing secret is said.
WITH_PASSWORD: Final[tuple[ClientMechanism, ...]] = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN")
WITH_TOKEN: Final[tuple[ClientMechanism, ...]] = ("OAUTHBEARER", "XOAUTH2")
# Keys of LoginOptions, of which at most one says what the secret is.
PROOFS: Final = ("password_file", "token_file")
ALL_MECHANISMS: Final = frozenset(get_args(ClientMechanism))


class LoginOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """user  to the other host; may be left out where only the certificate is shown. What proves it is one of the two
    files, in its first line, or the certificate alone; nobody but owner and group may read a file, and a changed one is
    read at the next connection:

    password_file     absolute path. token_file: likewise, of a bearer token (RFC 6750).
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
    external: bool = False
    mechanisms: list[ClientMechanism] = []
    hosts: list[str] = []
    allow_unverified: bool = False
    allow_clear: bool = False
    submitter: bool = False

    def __post_init__(self) -> None:
        proofs = [key for key in PROOFS if getattr(self, key)]
        if len(proofs) > 1 or not (proofs or self.external):
            others = " or ".join(PROOFS[1:])
            raise ValueError(f"{PROOFS[0]}: either it or {others} must be set, or external = true alone")
        octets = len(self.user.encode())
        if octets > PASSWORD_OCTETS or (proofs and not octets) or not self.user.isprintable():
            raise ValueError(f"user: 1 to {PASSWORD_OCTETS} octets of printable characters")
        if not proofs and self.allow_clear:
            raise ValueError("allow_clear: without TLS there is no certificate for external to go by")
        for key in ("password_file", "token_file"):
            path = getattr(self, key)
            if path and (not path.startswith("/") or not path.isprintable()):
                raise ValueError(f'{key}: "{path}" is not an absolute path')
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
    def _fit(self) -> tuple[ClientMechanism, ...]:
        with_secret = WITH_PASSWORD if self.password_file else WITH_TOKEN if self.token_file else ()
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
