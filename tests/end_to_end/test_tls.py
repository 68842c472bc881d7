"""TLS of a whole relay: workers, reload, renewal, and the example of docs/tls.md as it stands there."""

from __future__ import annotations

import os
import re
import signal
import smtplib
import socket
import ssl
from pathlib import Path

from end_to_end.relay import clean_relay, metrics
from relay_process import RelayProcess, maildir_route, wait_for
from tls.authority import certificate, client_context, der, fingerprint, listener_tls, write, write_authority

NAME = "mx.test.example"
PAGE = Path(__file__).parents[2] / "docs" / "tls.md"
BODY = "Subject: hello\r\n\r\nhello\r\n"


def listener(folder: Path) -> str:
    (files,) = listener_tls(folder)["certificates"]
    return (
        'relay_from = ["127.0.0.0/8"]\n[listener.tls]\n'
        f'certificates = [{{ cert = "{files["cert"]}", key = "{files["key"]}" }}]\n'
    )


class Client(smtplib.SMTP):
    """Connects to 127.0.0.1 and asks for NAME."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        super().__init__("127.0.0.1", port, local_hostname="client.example", timeout=20)
        self._host = NAME
        self.starttls(context=context or client_context())

    @property
    def certificate(self) -> bytes:
        assert isinstance(self.sock, ssl.SSLSocket)
        found = self.sock.getpeercert(binary_form=True)
        assert found is not None
        return found


def reload(relay: RelayProcess) -> str:
    before = len(relay.events("reloaded", "reload-refused"))
    relay.signal(signal.SIGHUP)
    wait_for(lambda: len(relay.events("reloaded", "reload-refused")) > before, "the reload is over")
    last = relay.events("reloaded", "reload-refused")[-1]
    return str(last.get("reason", ""))


def test_a_reload_brings_new_certificates_and_drops_nobody(tmp_path: Path) -> None:
    with clean_relay(tmp_path, maildir_route(tmp_path), listener=listener(tmp_path)) as relay:
        old = Client(relay.port)
        old.sendmail("me@x.example", ["you@y.example"], BODY)
        write(tmp_path, certificate(NAME, "RSA"), "mx")
        assert reload(relay) == ""
        with Client(relay.port) as new:
            assert new.certificate == der(certificate(NAME, "RSA"))
        assert old.certificate == der(certificate(NAME))
        old.sendmail("me@x.example", ["you@y.example"], BODY)
        old.quit()
        wait_for(lambda: len(relay.events("delivered")) == 2, "both are delivered")
        assert {event["protocol"] for event in relay.events("received")} == {"ESMTPS"}


def test_a_reload_with_a_broken_certificate_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    with clean_relay(tmp_path, maildir_route(tmp_path), listener=listener(tmp_path)) as relay:
        (tmp_path / "mx.key").write_bytes(certificate("other.example").private_key_pem.bytes())
        reason = f"listener[0].tls.certificates[0].key: {tmp_path}/mx.key: is not the key of the certificate"
        assert reload(relay) == f"{relay.config_path}: {reason}"
        with Client(relay.port) as client:
            assert client.certificate == der(certificate(NAME))


def test_a_worker_that_starts_with_a_broken_certificate_serves_in_clear(tmp_path: Path) -> None:
    lines = 'address = "127.0.0.1:0"\n' + listener(tmp_path)
    with RelayProcess(tmp_path, maildir_route(tmp_path), listener=lines) as relay:
        (tmp_path / "mx.key").write_bytes(b"")
        os.kill(relay.workers()[0], signal.SIGKILL)
        wait_for(lambda: relay.events("certificates-refused"), "the new worker says what is wrong")
        with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as client:
            assert client.ehlo()[0] == 250
            assert client.docmd("STARTTLS")[0] == 454
            client.sendmail("me@x.example", ["you@y.example"], BODY)
        write(tmp_path, certificate(NAME), "mx")
        assert reload(relay) == ""
        with Client(relay.port) as again:
            assert again.certificate == der(certificate(NAME))


def test_a_start_with_a_broken_certificate_is_refused(tmp_path: Path) -> None:
    relay = RelayProcess(tmp_path, listener='address = "127.0.0.1:0"\n' + listener(tmp_path))
    (tmp_path / "mx.pem").unlink()
    relay.launch()
    assert relay.wait() == 2
    reason = f"listener[0].tls.certificates[0].cert: {tmp_path}/mx.pem: No such file or directory"
    assert relay.errors() == f"angarium: {relay.config_path}: {reason}\n"
    assert relay.command("check").stderr == relay.errors()


def test_tickets_of_one_worker_are_taken_by_the_other(tmp_path: Path) -> None:
    with clean_relay(tmp_path, maildir_route(tmp_path), workers=2, listener=listener(tmp_path)) as relay:
        context = client_context()
        session: ssl.SSLSession | None = None
        for count in range(24):
            sock = socket.create_connection(("127.0.0.1", relay.port), 20)
            replies = sock.makefile("rb")
            assert replies.readline().startswith(b"220")
            sock.sendall(b"EHLO client.example\r\n")
            while replies.readline()[3:4] == b"-":
                pass
            sock.sendall(b"STARTTLS\r\n")
            assert replies.readline().startswith(b"220")
            tls = context.wrap_socket(sock, server_hostname=NAME, session=session)
            tls.sendall(b"QUIT\r\n")
            while tls.recv(1000):
                pass
            assert tls.session_reused is (count > 0), count
            session = tls.session
            tls.close()
        assert metrics(relay)["angarium_in_tls_resumed_total"] == 23


def test_the_example_of_the_page_works_as_it_stands(tmp_path: Path) -> None:
    example = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)[0]
    for kind in ("ECDSA", "RSA"):
        write(tmp_path, certificate("mx1.example.net", kind), f"mx1-{kind.lower()}")
    Path(write_authority(tmp_path)).rename(tmp_path / "our-ca.pem")
    ours, listed = certificate("host.example"), certificate("listed.example", ca="stranger")
    text = example.replace("/etc/angarium/", f"{tmp_path}/")
    text = text.replace("0.0.0.0:25", "127.0.0.1:0").replace("0.0.0.0:465", "127.0.0.2:0")
    text = re.sub(r'"lmtp://[^"]*"', f'"maildir:{tmp_path}/mail/{{local}}"', text)
    text = re.sub(r'relay_certificates = \["[0-9A-F:]+"\]', f'relay_certificates = ["{fingerprint(listed)}"]', text)
    text = text.replace("[node]\n", f'[node]\nspool = "{tmp_path}/spool"\nworkers = 1\n')
    relay = RelayProcess(tmp_path)
    relay.config_path.write_text(text)
    with relay:
        world, own = (int(port) for port in re.findall(r":(\d+)", relay.started()))
        context = client_context()
        with smtplib.SMTP("127.0.0.1", world, timeout=20) as client:
            client._host = "mx1.example.net"  # type: ignore[attr-defined]
            client.starttls(context=context)
            client.sendmail("me@x.example", ["you@example.net"], BODY)
        for leaf, may in ((ours, True), (listed, True), (None, False)):
            shown = client_context(leaf)
            shown.check_hostname = False
            with smtplib.SMTP_SSL("127.0.0.2", own, context=shown, timeout=20) as client:
                client.ehlo()
                client.mail("me@x.example")
                assert client.rcpt("you@elsewhere.example")[0] == (250 if may else 550)
        wait_for(lambda: relay.events("delivered"), "it is delivered")
