"""Certificates from files: what is refused and why, and what changes of the files lead to."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.hazmat.primitives.serialization import load_pem_private_key as read_key
from tls.authority import certificate, listener_tls, write

from angarium.config.files import Tree
from angarium.config.schema import check_certificates, load
from angarium.events.journal import Journal
from angarium.model.errors import ConfigError, TlsMaterialError
from angarium.model.units import decode_unit
from angarium.tls import certificates
from angarium.tls.context import ServerContext, TicketKeys
from angarium.tls.options import ServerTlsOptions
from angarium.tls.watch import CertificateWatch


def options(folder: Path, **changes: Any) -> ServerTlsOptions:
    return msgspec.convert(listener_tls(folder, **changes), ServerTlsOptions, dec_hook=decode_unit)


def gone(folder: Path) -> None:
    (folder / "mx.key").unlink()


def empty(folder: Path) -> None:
    (folder / "mx.pem").write_bytes(b"")


def no_pem(folder: Path) -> None:
    (folder / "mx.key").write_bytes(os.urandom(300))


def half(folder: Path) -> None:
    path = folder / "mx.pem"
    path.write_bytes(path.read_bytes()[:300])


def damaged_chain(folder: Path) -> None:
    path = folder / "mx.pem"
    octets = path.read_bytes()
    path.write_bytes(octets + octets[:400])


def other_key(folder: Path) -> None:
    (folder / "mx.key").write_bytes(certificate("other.example").private_key_pem.bytes())


def passphrase(folder: Path) -> None:
    key = read_key((folder / "mx.key").read_bytes(), None)
    sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (folder / "mx.key").write_bytes(sealed)


def directory(folder: Path) -> None:
    (folder / "mx.pem").unlink()
    (folder / "mx.pem").mkdir()


def huge(folder: Path) -> None:
    with (folder / "mx.key").open("wb") as file:
        file.truncate(5 << 20)


BROKEN = [
    (gone, "key", "No such file or directory"),
    (empty, "cert", "no usable certificate in PEM"),
    (no_pem, "key", "no private key in PEM"),
    (half, "cert", "no usable certificate in PEM"),
    (damaged_chain, "cert", "no usable certificate in PEM"),
    (other_key, "key", "is not the key of the certificate"),
    (passphrase, "key", "no private key in PEM without a passphrase"),
    (directory, "cert", "Is a directory"),
    (huge, "key", "larger than 4 MiB"),
]


@pytest.mark.parametrize(("breaking", "key", "reason"), BROKEN, ids=[breaking.__name__ for breaking, _, _ in BROKEN])
def test_a_file_that_cannot_be_used_is_named_with_its_key(
    tmp_path: Path, breaking: Any, key: str, reason: str
) -> None:
    made = options(tmp_path)
    breaking(tmp_path)
    with pytest.raises(TlsMaterialError) as refused:
        certificates.load(made, None)
    assert refused.value.key == f"certificates[0].{key}"
    assert refused.value.reason.startswith(f"{tmp_path}/mx.{'pem' if key == 'cert' else 'key'}: {reason}")


def test_a_client_ca_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(b"nothing")
    with pytest.raises(TlsMaterialError, match=f"^client_ca: {tmp_path}/ca.pem: no usable certificate"):
        certificates.load(options(tmp_path, client_ca=f"{tmp_path}/ca.pem"), None)


def test_the_configuration_is_refused_with_the_whole_path_of_the_key(tmp_path: Path) -> None:
    files = [write(tmp_path, certificate(name), name) for name in ("a.example", "b.example")]
    (tmp_path / "b.example.key").write_bytes(b"")
    path = tmp_path / "angarium.toml"
    path.write_text(
        '[[listener]]\naddress = "127.0.0.1:1"\n[[listener]]\naddress = "127.0.0.1:2"\n[listener.tls]\ncertificates = ['
        + ",".join(f'{{ cert = "{each["cert"]}", key = "{each["key"]}" }}' for each in files)
        + "]\n"
    )
    config, tree = load(path)
    assert isinstance(tree, Tree)
    with pytest.raises(ConfigError) as refused:
        check_certificates(config, tree)
    expected = f"{path}: listener[1].tls.certificates[1].key: {tmp_path}/b.example.key: no private key in PEM"
    assert str(refused.value).startswith(expected)


def test_what_a_table_of_shaping_names_is_refused_with_the_whole_path_of_the_key(tmp_path: Path) -> None:
    files = write(tmp_path, certificate("relay.example"), "relay")
    (tmp_path / "none.pem").write_bytes(b"nothing")
    shown = f'tls_certificate = {{ cert = "{files["cert"]}", key = "{tmp_path}/gone.key" }}\n'
    for text, reason in (
        (f'[shaping.domain."bank.example"]\n{shown}',
         f'shaping.domain."bank.example".tls_certificate.key: {tmp_path}/gone.key: No such file'),
        (f'[shaping.tenant.shop]\ntls_ca = "{tmp_path}/none.pem"\n',
         f"shaping.tenant.shop.tls_ca: {tmp_path}/none.pem: no usable certificate"),
    ):  # fmt: skip
        path = tmp_path / "angarium.toml"
        path.write_text(f'[[listener]]\naddress = "127.0.0.1:1"\n{text}')
        with pytest.raises(ConfigError) as refused:
            check_certificates(*load(path))
        assert str(refused.value).startswith(f"{path}: {reason}")


class Holder:
    def __init__(self) -> None:
        self.given: list[ServerContext] = []

    def replace_certificates(self, tls: ServerContext) -> None:
        self.given.append(tls)


def test_files_that_change_are_loaded_anew_and_broken_ones_are_not(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def main(fd: int) -> None:
        watch = CertificateWatch(asyncio.get_running_loop(), Journal(fd), TicketKeys())
        holder = Holder()
        assert await watch.load("[::]:25", None) is None
        assert await watch.load("[::]:25", options(tmp_path)) is not None
        watch.hold("[::]:25", holder)
        await watch.look()
        assert holder.given == [], "nothing has changed"

        write(tmp_path, certificate("mx.test.example", "RSA"), "mx")
        await watch.look()
        assert len(holder.given) == 1

        half(tmp_path)
        await watch.look()
        await watch.look()
        assert len(holder.given) == 1, "those before stay"
        assert log.read_text().count('"event":"certificates-refused"') == 1, "told once"

        write(tmp_path, certificate("mx.test.example"), "mx")
        await watch.look()
        assert len(holder.given) == 2
        watch.forget("[::]:25")
        gone(tmp_path)
        await watch.look()
        assert log.read_text().count('"event":"certificates-refused"') == 1
        watch.stop()

    fd = os.open(log, os.O_WRONLY | os.O_CREAT)
    try:
        asyncio.run(main(fd))
    finally:
        os.close(fd)


def test_a_listener_that_starts_with_broken_files_gets_good_ones_later(tmp_path: Path) -> None:
    async def main(fd: int) -> None:
        watch = CertificateWatch(asyncio.get_running_loop(), Journal(fd), None)
        made, holder = options(tmp_path), Holder()
        half(tmp_path)
        assert await watch.load("a", made) is None
        watch.hold("a", holder)
        write(tmp_path, certificate("mx.test.example"), "mx")
        await watch.look()
        assert len(holder.given) == 1
        watch.stop()

    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    try:
        asyncio.run(main(fd))
    finally:
        os.close(fd)
