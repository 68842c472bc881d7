"""An OAuth 2.0 token endpoint (RFC 6749): [login.NAME.token_endpoint]. One POST gives an access token and says how long
it lasts. Nothing is kept here; when a token is fetched is tokens.py's.

A refresh token that the endpoint replaces (§6) is written to its file, since the old one may be good for nothing from
then on. Workers that replace it at the same time look once more into the file before they give up.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import ssl
import stat
from typing import Final
from urllib.parse import quote, quote_plus, urlencode

import msgspec

from angarium.sasl.bearer import TOKEN, TOKEN_OCTETS
from angarium.sasl.http_post import HttpPlace, HttpTrouble, post
from angarium.sasl.login_options import TokenEndpointOptions
from angarium.sasl.preparation import PASSWORD_OCTETS
from angarium.sasl.secret_file import LoginTrouble, read_secret_file

_FORM: Final = "application/x-www-form-urlencoded"
_LONGEST_S: Final = 86_400.0        # judged: who says a year may take the right away tomorrow
_WORDS: Final = 200


class Token(msgspec.Struct, frozen=True):
    """lasts_s  as who gave it says; None: he does not.  warning  what went wrong besides, for people."""

    text: str
    lasts_s: float | None = None
    warning: str = ""

    def __repr__(self) -> str:
        return f"Token(lasts_s={self.lasts_s})"


class _Grant(msgspec.Struct, frozen=True):
    """§5.1."""

    access_token: str
    token_type: str = "Bearer"
    expires_in: float | str | None = None
    refresh_token: str = ""


class _Refusal(msgspec.Struct, frozen=True):
    """§5.2."""

    error: str
    error_description: str = ""


class _Secrets(msgspec.Struct, frozen=True):
    client: str
    refresh: str

    def hide(self, text: str) -> str:
        """What the endpoint says, for a log: it might repeat what it was told."""
        for secret in filter(None, (self.client, self.refresh)):
            for spelling in (secret, quote(secret, safe=""), quote_plus(secret)):
                text = text.replace(spelling, "...")
        return "".join(each if each.isprintable() else "?" for each in text)[:_WORDS]


async def fetch_token(options: TokenEndpointOptions) -> Token:
    """Deadlines are the caller's. Raises LoginTrouble."""
    loop = asyncio.get_running_loop()
    place = HttpPlace(options.url)
    tls = await loop.run_in_executor(None, _authorities, options) if place.is_tls else None
    secrets = await loop.run_in_executor(None, _read, options)
    try:
        status, content = await _ask(place, options, secrets, tls)
        if status in (400, 401) and options.refresh_token_file:
            newer = await loop.run_in_executor(None, _read, options)
            if newer.refresh != secrets.refresh:        # another worker was faster
                secrets = newer
                status, content = await _ask(place, options, secrets, tls)
    except (OSError, ValueError, HttpTrouble) as error:     # ValueError: a name that is none
        raise _trouble(options, _words(error)) from None
    if status != 200:
        raise _trouble(options, _refused(status, content, secrets))
    try:
        grant = msgspec.json.decode(content, type=_Grant)
        lasts_s = None if grant.expires_in is None else min(max(0.0, float(grant.expires_in)), _LONGEST_S)
    except (msgspec.DecodeError, ValueError):
        raise _trouble(options, "its answer has no access token as RFC 6749 §5.1 describes it") from None
    if grant.token_type.lower() != "bearer":
        raise _trouble(options, "its token is no bearer token")
    if len(grant.access_token) > TOKEN_OCTETS or not TOKEN.fullmatch(grant.access_token):
        raise _trouble(options, "its answer has what is no bearer token (RFC 6750 §2.1)")
    warning = ""
    if options.refresh_token_file and grant.refresh_token not in ("", secrets.refresh):
        try:
            await loop.run_in_executor(None, _keep, options.refresh_token_file, grant.refresh_token)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            warning = f"{options.refresh_token_file}: the new refresh token cannot be kept there: {reason}"
    return Token(grant.access_token, lasts_s, warning)


def check_endpoint(options: TokenEndpointOptions) -> None:
    """Whether the files can be read, for who asks beforehand: nothing is sent. Raises LoginTrouble."""
    _read(options)
    _authorities(options)


async def _ask(
    place: HttpPlace, options: TokenEndpointOptions, secrets: _Secrets, tls: ssl.SSLContext | None
) -> tuple[int, bytes]:
    form: dict[str, str] = {"grant_type": options.grant}
    headers = []
    if options.client_auth == "basic" and secrets.client:
        # §2.3.1: encoded as in a form, then as RFC 7617 has it.
        pair = f"{quote(options.client_id, safe='')}:{quote(secrets.client, safe='')}"
        headers.append(("Authorization", "Basic " + base64.b64encode(pair.encode()).decode()))
    else:
        form["client_id"] = options.client_id
        if secrets.client:
            form["client_secret"] = secrets.client
    if options.grant == "refresh_token":
        form["refresh_token"] = secrets.refresh
    if options.scope:
        form["scope"] = options.scope
    return await post(place, urlencode(form).encode(), _FORM, tls=tls, headers=headers)


def _read(options: TokenEndpointOptions) -> _Secrets:
    client = read_secret_file(options.client_secret_file, PASSWORD_OCTETS)[1] if options.client_secret_file else ""
    refresh = read_secret_file(options.refresh_token_file, TOKEN_OCTETS)[1] if options.refresh_token_file else ""
    return _Secrets(client or "", refresh or "")


def _authorities(options: TokenEndpointOptions) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=options.ca or None)
    except OSError as error:
        raise LoginTrouble(f"{options.ca}: no authorities in PEM: {error.strerror or error}") from None


def _keep(path: str, refresh_token: str) -> None:
    """The file is the old one or the new one at every moment, with the same mode and group; a link to it stays one."""
    path = os.path.realpath(path)
    octets = refresh_token.encode("ascii")
    if len(octets) > TOKEN_OCTETS or not refresh_token.isprintable():
        raise ValueError("it is not what RFC 6749 appendix A.17 allows")
    old = os.stat(path)
    new = f"{path}.{os.getpid()}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:
            with contextlib.suppress(OSError):      # a group that is not ours cannot be given
                os.fchown(descriptor, -1, old.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
            file.write(octets + b"\n")
            file.flush()
            os.fsync(descriptor)
        os.rename(new, path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        raise


def _refused(status: int, content: bytes, secrets: _Secrets) -> str:
    try:
        refusal = msgspec.json.decode(content, type=_Refusal)
    except msgspec.DecodeError:
        return f"HTTP status {status}"
    words = f"{refusal.error}: {refusal.error_description}" if refusal.error_description else refusal.error
    return f"HTTP status {status}: {secrets.hide(words)}"


def _words(error: Exception) -> str:
    """What a peer's certificate says does not go into a log as it is."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}".encode("ascii", "replace").decode()
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)


def _trouble(options: TokenEndpointOptions, what: str) -> LoginTrouble:
    return LoginTrouble(f"token_endpoint {options.url}: {what}")
