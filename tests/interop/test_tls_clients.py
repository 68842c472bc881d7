"""TLS with clients that others wrote: swaks (OpenSSL through Perl), openssl s_client, msmtp (GnuTLS)."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from end_to_end.next_hop import NextHop
from end_to_end.relay import clean_relay, metrics
from interop.programs import program, run
from relay_process import RelayProcess, wait_for
from tls.authority import certificate, write, write_authority

NAME = "mx.test.example"


@contextmanager
def relay_under_tls(folder: Path, more: str = "") -> Iterator[tuple[RelayProcess, NextHop]]:
    tables = [write(folder, certificate(NAME, kind), kind) for kind in ("ECDSA", "RSA")]
    files = ", ".join(f'{{ cert = "{each["cert"]}", key = "{each["key"]}" }}' for each in tables)
    listener = f'relay_from = ["127.0.0.0/8"]\n[listener.tls]\ncertificates = [{files}]\n{more}'
    with NextHop() as hop, clean_relay(folder, hop.route, listener=listener) as relay:
        yield relay, hop


def s_client(port: int, said: bytes, *words: str) -> str:
    """`openssl s_client -starttls smtp`; `said` is typed under TLS, each line once the last was answered."""
    done = subprocess.run(
        [program("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-servername", NAME, "-crlf",
         "-ign_eof", *(words or ("-starttls", "smtp"))],
        input=said, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def swaks(port: int, *words: str) -> str:
    return run("swaks", "--server", "127.0.0.1", "--port", str(port), "--from", "me@x.example", *words)


def needs_perl_tls() -> None:
    found = subprocess.run([program("perl"), "-MNet::SSLeay", "-e", "1"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip("Net::SSLeay is not installed: tools/interop-peers installs it")


@pytest.mark.parametrize("version", ["tlsv1_2", "tlsv1_3"])
def test_swaks_by_starttls(tmp_path: Path, version: str) -> None:
    needs_perl_tls()
    with relay_under_tls(tmp_path) as (relay, hop):
        talk = swaks(relay.port, "--tls", "--tls-protocol", version, "--to", "a@y.example,b@y.example")
        assert re.search(r"=== TLS started with cipher TLSv1\.[23]:", talk)
        assert "~> EHLO" in talk
        assert len(hop.wait_for_count(1)[0].to) == 2
        assert wait_for(lambda: relay.events("received"), "it is logged")[0]["protocol"] == "ESMTPS"


def test_swaks_by_implicit_tls(tmp_path: Path) -> None:
    needs_perl_tls()
    with relay_under_tls(tmp_path, "implicit = true\n") as (relay, hop):
        swaks(relay.port, "--tls-on-connect", "--to", "a@y.example")
        hop.wait_for_count(1)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("kind", ["RSA", "ECDSA"])
def test_s_client_finds_the_certificate_of_its_kind(tmp_path: Path, version: str, kind: str) -> None:
    with relay_under_tls(tmp_path) as (relay, _):
        algorithms = "rsa_pss_rsae_sha256" if kind == "RSA" else "ecdsa_secp256r1_sha256"
        ca = write_authority(tmp_path)
        talk = s_client(relay.port, b"QUIT\n", "-starttls", "smtp", version, "-sigalgs", algorithms, "-CAfile", ca,
                        "-verify_return_error")  # fmt: skip
        assert "Verify return code: 0 (ok)" in talk
        assert f"Peer signature type: {'RSA-PSS' if kind == 'RSA' else 'ECDSA'}" in talk
        assert "221 2.0.0" in talk


def test_renegotiation_is_refused_and_the_session_goes_on(tmp_path: Path) -> None:
    with relay_under_tls(tmp_path) as (relay, _):
        process = subprocess.Popen(
            [program("openssl"), "s_client", "-connect", f"127.0.0.1:{relay.port}", "-starttls", "smtp", "-tls1_2"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        wait_for(lambda: metrics(relay)["angarium_in_tls_handshakes_total"] == 1, "the handshake")
        talk = process.communicate(b"R\n", 60)[0].decode()
        assert "RENEGOTIATING" in talk
        assert "no renegotiation" in talk
        assert metrics(relay)["angarium_in_tls_handshakes_total"] == 1


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_s_client_with_an_old_version_is_refused(tmp_path: Path, version: str) -> None:
    with relay_under_tls(tmp_path) as (relay, _):
        talk = s_client(relay.port, b"", "-starttls", "smtp", version, "-cipher", "ALL:@SECLEVEL=0")
        assert "alert protocol version" in talk
        wait_for(lambda: relay.events("tls-failed"), "it is told")


def test_msmtp_by_starttls(tmp_path: Path) -> None:
    program("msmtp")
    with relay_under_tls(tmp_path) as (relay, hop):
        run("msmtp", "--host=127.0.0.1", f"--port={relay.port}", "--tls=on", "--tls-starttls=on",
            f"--tls-trust-file={write_authority(tmp_path)}", f"--tls-host-override={NAME}",
            "--from=me@x.example", "a@y.example", input_octets=b"Subject: x\r\n\r\nhello\r\n")  # fmt: skip
        hop.wait_for_count(1)
        assert wait_for(lambda: relay.events("received"), "it is logged")[0]["protocol"] == "ESMTPS"
