"""Certificates from files: read, checked, compiled into a context, a listener's or one for connections
out; and whether the files have changed since.

Everything here waits for the disk: a worker calls it in a thread.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from angarium.model.errors import TlsMaterialError
from angarium.tls.client import ClientContext
from angarium.tls.context import ServerContext, TicketKeys
from angarium.tls.options import CertificateOptions, ServerTlsOptions

# A PEM file is a few thousand octets, a bundle of authorities some hundred thousand: what is larger is something else.
_FILE_OCTETS_MAX = 4 << 20

# What is asked of a certificate: see ClientContext.
ProfileName = Literal["any", "strict", "dane"]

# Of each file in order: inode, size, time of change in ns; None when there is none.
Stamp = tuple[tuple[int, int, int] | None, ...]


def load(options: ServerTlsOptions, tickets: TicketKeys | None) -> ServerContext:
    """Reads all files. Raises TlsMaterialError with the key, "certificates[0].cert", and the reason."""
    context = ServerContext(is_tls13_only=options.min_version == "1.3", tickets=tickets)
    for index, certificate in enumerate(options.certificates):
        here = f"certificates[{index}]."
        cert = _read(here + "cert", certificate.cert)
        key = _read(here + "key", certificate.key)
        try:
            context.add(cert, key)
        except TlsMaterialError as error:
            path = certificate.key if error.key == "key" else certificate.cert
            raise TlsMaterialError(here + error.key, f"{path}: {error.reason}") from None
    context.seal()
    if options.client_ca is not None or options.relay_certificates:
        authorities = _read("client_ca", options.client_ca) if options.client_ca is not None else b""
        try:
            context.ask_certificate(authorities)
        except TlsMaterialError as error:
            raise TlsMaterialError(error.key, f"{options.client_ca}: {error.reason}") from None
    return context


def stamp(options: ServerTlsOptions) -> Stamp:
    """Changes when one of the files does."""
    paths = [path for certificate in options.certificates for path in (certificate.cert, certificate.key)]
    if options.client_ca is not None:
        paths.append(options.client_ca)
    return tuple(_stamp_of(path) for path in paths)


def load_client(ca: str | None, certificate: CertificateOptions | None, profile: ProfileName) -> ClientContext:
    """For connections out: reads all files. Raises TlsMaterialError with the key, "tls_ca", "tls_certificate.cert"."""
    context = ClientContext(profile)
    try:
        if profile != "dane":
            context.trust(_read("tls_ca", ca) if ca is not None else b"")
    except TlsMaterialError as error:
        raise TlsMaterialError("tls_ca", error.reason if error.key == "tls_ca" else f"{ca}: {error.reason}") from None
    if certificate is not None:
        cert = _read("tls_certificate.cert", certificate.cert)
        key = _read("tls_certificate.key", certificate.key)
        try:
            context.show(cert, key)
        except TlsMaterialError as error:
            path = certificate.key if error.key == "key" else certificate.cert
            raise TlsMaterialError(f"tls_certificate.{error.key}", f"{path}: {error.reason}") from None
    return context


def stamp_client(ca: str | None, certificate: CertificateOptions | None) -> Stamp:
    """Changes when one of the files does."""
    paths = [] if ca is None else [ca]
    if certificate is not None:
        paths += [certificate.cert, certificate.key]
    return tuple(_stamp_of(path) for path in paths)


def _stamp_of(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read(key: str, path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            octets = file.read(_FILE_OCTETS_MAX + 1)
    except OSError as error:
        raise TlsMaterialError(key, f"{path}: {error.strerror or error}") from None
    if len(octets) > _FILE_OCTETS_MAX:
        raise TlsMaterialError(key, f"{path}: larger than {_FILE_OCTETS_MAX >> 20} MiB")
    return octets
