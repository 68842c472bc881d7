"""Bearer tokens from commands and OAuth 2.0 endpoints: hostile ones, slow ones, and many who wait for one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import pathlib
import ssl
import stat
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qs, quote_plus

import pytest
from inbound.intake_harness import run
from tls import authority

from angarium.model.units import Duration
from angarium.sasl.login_options import LoginOptions, TokenEndpointOptions
from angarium.sasl.logins import Logins
from angarium.sasl.secret_file import LoginTrouble
from angarium.sasl.token_command import OUTPUT_OCTETS, TokenCommand
from angarium.sasl.tokens import FAILURE_S

TOKEN = "ya29.a0ARrdaM-token"
SECRET = "client-secret/with+signs"
REFRESH = "1//refresh-token"


def script(folder: pathlib.Path, text: str) -> list[str]:
    path = folder / "fetch-token"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return [str(path)]


def by_command(argv: list[str], **options: Any) -> LoginOptions:
    return LoginOptions(user="us@example.net", token_command=argv, **options)


# ---- commands


@pytest.mark.parametrize(
    "text",
    [f"echo {TOKEN}", f"printf '{TOKEN}\\r\\nmore\\n'", f"printf {TOKEN}", f"echo {TOKEN}; (sleep 100; echo late) &"],
)
def test_the_first_line_of_a_command_is_the_token(tmp_path: pathlib.Path, text: str) -> None:
    assert TokenCommand(script(tmp_path, text), 20).run() == TOKEN


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("true", "its first line is empty"),
        ("echo; echo token", "its first line is empty"),
        ("printf 'a\\033[2Jb\\n'", "no bearer token"),
        ("printf 'a\\000b\\n'", "no bearer token"),
        ("printf '\\377\\376\\n'", "no bearer token"),
        ("echo two words", "no bearer token"),
        ("head -c 9000 /dev/zero | tr '\\0' a", "no bearer token"),
        ("cat /dev/zero", f"writes more than {OUTPUT_OCTETS >> 10} KiB"),
        (f"echo {TOKEN}; exit 3", "ended with status 3"),
        (f"echo {TOKEN}; kill -9 $$", "was ended by signal 9"),
        ("exec sleep 1000", "is not done within 0.3 s"),
        ("trap '' TERM HUP INT; while :; do :; done", "is not done within 0.3 s"),
        ("while :; do echo; sleep 0.01; done", "is not done within 0.3 s"),
    ],
)
def test_what_a_command_writes_else_is_no_token_and_is_not_repeated(
    tmp_path: pathlib.Path, text: str, reason: str
) -> None:
    command = TokenCommand(script(tmp_path, text), 0.3 if "0.3 s" in reason else 60)
    with pytest.raises(LoginTrouble) as raised:
        command.run()
    assert reason in str(raised.value) and "fetch-token" in str(raised.value)
    assert TOKEN not in str(raised.value) and "\033" not in str(raised.value)


@pytest.mark.parametrize("argv", [["/nonexistent/fetch-token"], ["/etc/passwd"]])
def test_a_command_that_cannot_be_run_says_so(argv: list[str]) -> None:
    with pytest.raises(LoginTrouble, match=f"token_command {argv[0]} cannot be run: "):
        TokenCommand(argv, 20).run()


def test_what_a_command_leaves_running_is_killed(tmp_path: pathlib.Path) -> None:
    left = tmp_path / "left"
    assert TokenCommand(script(tmp_path, f"sleep 1000 & echo $! > {left}; echo {TOKEN}"), 20).run() == TOKEN
    number = left.read_text().strip()
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{number}") and "Z" not in pathlib.Path(f"/proc/{number}/stat").read_text():
        assert time.monotonic() < deadline, "it runs on"
        time.sleep(0.01)


def test_a_command_knows_nothing_of_what_systemd_tells_us(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "@secret")
    monkeypatch.setenv("VAULT_ADDR", "vault")
    assert TokenCommand(script(tmp_path, 'echo "t$NOTIFY_SOCKET$VAULT_ADDR"'), 20).run() == "tvault"


def test_one_run_is_for_all_who_wait_and_a_failure_is_remembered(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        now = 1000.0
        runs, gate = tmp_path / "runs", tmp_path / "gate"
        argv = script(
            tmp_path, f"echo x >> {runs}; while [ ! -e {gate} ]; do sleep 0.01; done; cat {gate}; test -s {gate}"
        )
        logins = Logins({"relay": by_command(argv, token_time=Duration(100))}, clock=lambda: now)
        waiting = [asyncio.create_task(logins.credentials("relay")) for _ in range(50)]
        while not runs.exists():
            await asyncio.sleep(0.01)
        gate.touch()
        failed = await asyncio.gather(*waiting, return_exceptions=True)
        assert {str(each) for each in failed} == {f"token_command {argv[0]} ended with status 1"}
        gate.write_text(TOKEN)
        with pytest.raises(LoginTrouble, match="status 1"):
            await logins.credentials("relay")
        now += FAILURE_S
        found = await asyncio.gather(*(logins.credentials("relay") for _ in range(50)))
        assert {id(each) for each in found} == {id(found[0])} and found[0].secret == TOKEN
        now += 50
        assert await logins.credentials("relay") is found[0]
        assert runs.read_text() == "x\n" * 2, "one run for each that was needed"
        logins.close()

    run(main())


def test_a_token_is_renewed_ahead_and_mail_goes_on_meanwhile(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        now = 1000.0
        reports: list[tuple[str, str]] = []
        output = tmp_path / "token"
        output.write_text("first")
        options = by_command(script(tmp_path, f"cat {output}; test -s {output}"), token_time=Duration(100))
        logins = Logins({"relay": options}, clock=lambda: now, report=lambda *told: reports.append(told))
        first = await logins.credentials("relay")
        output.write_text("")
        now += 80
        assert await logins.credentials("relay") is first
        while not reports:
            await asyncio.sleep(0.01)
        assert reports == [("relay", f"token_command {options.token_command[0]} ended with status 1")]
        assert await logins.credentials("relay") is first, "it holds still"
        now += 9
        output.write_text("second")
        assert await logins.credentials("relay") is first, "who failed rests"
        now += 2                        # its time is over, and that of the failure is not
        with pytest.raises(LoginTrouble, match="status 1"):
            await logins.credentials("relay")
        now += FAILURE_S
        assert (await logins.credentials("relay")).secret == "second"
        logins.close()

    run(main())


def test_who_ends_ends_what_runs(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        started = tmp_path / "started"
        options = by_command(script(tmp_path, f"echo $$ > {started}.new; mv {started}.new {started}; exec sleep 1000"))
        logins = Logins({"relay": options})
        waiting = asyncio.create_task(logins.credentials("relay"))
        while not started.exists():
            await asyncio.sleep(0.01)
        logins.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        number = started.read_text().strip()
        while os.path.exists(f"/proc/{number}"):
            await asyncio.sleep(0.01)

    run(main())


# ---- endpoints


Answer = Callable[[dict[str, str]], tuple[int, Any]]


class Endpoint:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[dict[str, str]] = []
        self.heads: list[str] = []
        self.port = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
            form = {key: value[0] for key, value in parse_qs((await reader.readexactly(length)).decode()).items()}
            self.asked.append(form)
            await self.gate.wait()
            status, content = self.answer(form)
            octets = content if isinstance(content, bytes) else json.dumps(content).encode()
            writer.write(b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n\r\n%b" % (status, len(octets), octets))
            await writer.drain()
        writer.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/token"


@contextlib.asynccontextmanager
async def endpoint(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Endpoint]:
    found = Endpoint(answer)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0, ssl=tls)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        found.gate.set()
        server.close()


def secret_file(folder: pathlib.Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text + "\n")
    path.chmod(0o600)
    return str(path)


def at(folder: pathlib.Path, url: str, grant: str = "client_credentials", **options: Any) -> LoginOptions:
    files = {"client_secret_file": secret_file(folder, "client", SECRET)}
    if grant == "refresh_token":
        files["refresh_token_file"] = secret_file(folder, "refresh", REFRESH)
    timeout = options.pop("token_timeout", Duration(20))
    of_endpoint = TokenEndpointOptions(url=url, grant=grant, client_id="relay", **files, **options)  # type: ignore[arg-type]
    return LoginOptions(user="us@example.net", token_endpoint=of_endpoint, token_timeout=timeout)


def grants(**more: Any) -> Answer:
    return lambda form: (200, {"access_token": TOKEN, "token_type": "bearer", **more})


def test_client_credentials_and_refresh_token_are_asked_as_the_rfc_has_it(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with endpoint(grants()) as server:
            options = at(tmp_path, server.url, scope="smtp.send offline")
            assert (await Logins({"relay": options}).credentials("relay")).secret == TOKEN
            options = at(tmp_path, server.url, "refresh_token", client_auth="basic")
            assert (await Logins({"relay": options}).credentials("relay")).secret == TOKEN
            assert server.asked == [
                {
                    "grant_type": "client_credentials",
                    "client_id": "relay",
                    "client_secret": SECRET,
                    "scope": "smtp.send offline",
                },
                {"grant_type": "refresh_token", "refresh_token": REFRESH},
            ]
            basic = base64.b64encode(b"relay:client-secret%2Fwith%2Bsigns").decode()
            assert f"authorization: basic {basic.lower()}\r\n" in server.heads[1].lower()
            assert "authorization" not in server.heads[0].lower()

    run(main())


def test_an_endpoint_is_asked_again_when_the_time_that_it_said_is_over(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        now = 1000.0
        tokens = iter(("one", "two", "three"))
        async with endpoint(lambda form: (200, {"access_token": next(tokens), "expires_in": "1000"})) as server:
            logins = Logins({"relay": at(tmp_path, server.url)}, clock=lambda: now)
            assert {(await logins.credentials("relay")).secret for _ in range(5)} == {"one"}
            now += 740
            assert (await logins.credentials("relay")).secret == "one"
            assert len(server.asked) == 1
            now += 20
            assert (await logins.credentials("relay")).secret == "one", "the next is fetched behind the mail"
            while len(server.asked) < 2 or (await logins.credentials("relay")).secret == "one":
                await asyncio.sleep(0.01)
            assert (await logins.credentials("relay")).secret == "two" and len(server.asked) == 2
            now += 2000
            assert (await logins.credentials("relay")).secret == "three"

    run(main())


def test_one_answer_is_for_all_who_wait(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with endpoint(grants()) as server:
            server.gate.clear()
            logins = Logins({"relay": at(tmp_path, server.url)})
            waiting = [asyncio.create_task(logins.credentials("relay")) for _ in range(100)]
            while not server.asked:
                await asyncio.sleep(0.01)
            waiting[0].cancel()             # its connection is not wanted any more
            server.gate.set()
            found = await asyncio.gather(*waiting[1:])
            assert len({id(each) for each in found}) == 1 == len(server.asked)

    run(main())


@pytest.mark.parametrize(
    ("status", "content", "reason"),
    [
        (400, {"error": "invalid_grant", "error_description": "Expired"}, "HTTP status 400: invalid_grant: Expired"),
        (401, {"error": "invalid_client"}, "HTTP status 401: invalid_client"),
        (400, {"error": "x", "error_description": f"not {SECRET} nor {REFRESH}"}, "x: not ... nor ..."),
        (400, {"error": "x", "error_description": f"in {quote_plus(SECRET)}&"}, "x: in ...&"),
        (400, {"error": "a\u001b[2Jb\r\nc"}, "HTTP status 400: a?[2Jb??c"),
        (500, b"\x00\x1b[2J", "HTTP status 500"),
        (302, b"", "HTTP status 302"),
        (200, b"", "no access token"),
        (200, b"null", "no access token"),
        (200, {"token_type": "bearer"}, "no access token"),
        (200, {"access_token": "a b"}, "no bearer token"),
        (200, {"access_token": "a\r\nMAIL FROM:<>"}, "no bearer token"),
        (200, {"access_token": "a" * 9000}, "no bearer token"),
        (200, {"access_token": "a", "token_type": "mac"}, "its token is no bearer token"),
        (200, {"access_token": "a", "expires_in": "soon"}, "no access token"),
        (200, b"a" * (1 << 20), "more than 64 KiB"),
        (200, b"[" * 60000, "no access token"),
    ],
)
def test_what_an_endpoint_says_else_is_told_without_secrets(
    tmp_path: pathlib.Path, status: int, content: Any, reason: str
) -> None:
    async def main() -> None:
        async with endpoint(lambda form: (status, content)) as server:
            with pytest.raises(LoginTrouble) as raised:
                await Logins({"relay": at(tmp_path, server.url, "refresh_token")}).credentials("relay")
            text = str(raised.value)
            assert text.startswith(f"token_endpoint {server.url}: ") and reason in text
            assert SECRET not in text and REFRESH not in text and text.isprintable()

    run(main())


def test_an_endpoint_that_never_answers_has_its_time(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with endpoint(grants()) as server:
            server.gate.clear()
            options = at(tmp_path, server.url, token_timeout=Duration(0.2))
            with pytest.raises(LoginTrouble, match=r"not done within 0\.2 s"):
                await Logins({"relay": options}).credentials("relay")

    run(main())


def test_an_endpoint_that_is_not_there_or_speaks_something_else_says_so(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mx.example ESMTP\r\n")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(LoginTrouble, match=r"does not speak HTTP|[Cc]onnection"):
            await Logins({"relay": at(tmp_path, url)}).credentials("relay")
        server.close()
        await server.wait_closed()
        with pytest.raises(LoginTrouble, match=r"[Cc]onnect"):
            await Logins({"relay": at(tmp_path, url)}).credentials("relay")

    run(main())


@pytest.mark.parametrize("is_known", [True, False])
def test_an_endpoint_proves_who_it_is(tmp_path: pathlib.Path, is_known: bool) -> None:
    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.certificate("localhost", ca="authority" if is_known else "stranger").configure_cert(context)
        async with endpoint(grants(), tls=context) as server:
            url = f"https://localhost:{server.port}/token"
            logins = Logins({"relay": at(tmp_path, url, ca=authority.write_authority(tmp_path))})
            if is_known:
                assert (await logins.credentials("relay")).secret == TOKEN
            else:
                with pytest.raises(LoginTrouble, match="certificate verify failed"):
                    await logins.credentials("relay")
                assert not server.asked

    run(main())


def test_a_new_refresh_token_is_kept_and_used(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with endpoint(grants(refresh_token="newer", expires_in=0)) as server:
            options = at(tmp_path, server.url, "refresh_token")
            now = 0.0
            logins = Logins({"relay": options}, clock=lambda: now)
            await logins.credentials("relay")
            await logins.credentials("relay")
            assert len(server.asked) == 1, "no endpoint is asked for every connection, whatever it says"
            now = 10.0
            await logins.credentials("relay")
            assert [each["refresh_token"] for each in server.asked] == [REFRESH, "newer"]
            file = tmp_path / "refresh"
            assert file.read_text() == "newer\n" and stat.S_IMODE(file.stat().st_mode) == 0o600
            assert sorted(each.name for each in tmp_path.iterdir()) == ["client", "refresh"]

    run(main())


@pytest.mark.parametrize("given", ["a\nb", "\u00e9", "x" * 9000])
def test_a_refresh_token_that_is_none_is_not_kept_and_that_is_told(tmp_path: pathlib.Path, given: str) -> None:
    async def main() -> None:
        reports: list[tuple[str, str]] = []
        async with endpoint(grants(refresh_token=given)) as server:
            options = at(tmp_path, server.url, "refresh_token")
            logins = Logins({"relay": options}, report=lambda *told: reports.append(told))
            assert (await logins.credentials("relay")).secret == TOKEN
            ((name, reason),) = reports
            assert name == "relay" and "cannot be kept there" in reason and given not in reason
            assert (tmp_path / "refresh").read_text() == REFRESH + "\n"

    run(main())


def test_a_refresh_token_that_another_worker_replaced_is_read_again(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        def answer(form: dict[str, str]) -> tuple[int, Any]:
            if form["refresh_token"] == "newer":
                return 200, {"access_token": TOKEN}
            secret_file(tmp_path, "refresh", "newer")
            return 400, {"error": "invalid_grant"}

        async with endpoint(answer) as server:
            logins = Logins({"relay": at(tmp_path, server.url, "refresh_token")})
            assert (await logins.credentials("relay")).secret == TOKEN
            assert len(server.asked) == 2

    run(main())


def test_a_secret_that_others_may_read_is_not_used(tmp_path: pathlib.Path) -> None:
    async def main() -> None:
        async with endpoint(grants()) as server:
            options = at(tmp_path, server.url)
            (tmp_path / "client").chmod(0o644)
            with pytest.raises(LoginTrouble, match="mode 0644 lets others read"):
                await Logins({"relay": options}).credentials("relay")
            assert not server.asked

    run(main())
