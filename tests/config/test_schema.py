"""What a configuration file may say, and how a refusal names the key."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from angarium.config.decode import decode_tables
from angarium.config.files import Tree
from angarium.config.location import find, read_location
from angarium.config.schema import Config, check_secrets, load, of_tables
from angarium.model.errors import ConfigError

LISTENER = '[[listener]]\naddress = "127.0.0.1:2525"\n'

# Every key that docs and design promise.
WHOLE = """
[node]
hostname = "mx1.example.net"
spool    = "/var/spool/angarium"
workers  = 0
user     = "root"

[[listener]]
address    = "127.0.0.1:2525"
protocol   = "smtp"
relay_from = ["127.0.0.0/8"]

[[listener]]
address = "unix:/run/angarium/in.sock"

[[route]]
domain   = "*"
next_hop = "smtp://127.0.0.1:10026"

[source.ip-1]
address = "192.0.2.1"
ehlo    = "out1.example.net"

[source."ip 2"]
address = "192.0.2.2"

[pool.default]
sources = { ip-1 = 1, "ip 2" = 3 }

[shaping.default]
connections = 32
message_rate = "100/s"

[queue.default]
retry   = { first = "5m", factor = 2.0, max = "4h", jitter = 0.1 }
max_age = "5d"

[resolver]
nameservers = ["127.0.0.1:53"]

[admin]
address = "127.0.0.1:8025"
"""


def write(directory: Path, text: str, name: str = "angarium.toml") -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def config_of(directory: Path, text: str) -> Config:
    return load(write(directory, text))[0]


def refusal(directory: Path, text: str) -> str:
    """The reason without the file's name, which must come first."""
    path = write(directory, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    prefix = f"{path}: "
    assert str(caught.value).startswith(prefix)
    return str(caught.value).removeprefix(prefix)


def test_every_key_of_the_design_is_read(tmp_path: Path) -> None:
    config = config_of(tmp_path, WHOLE)
    assert config.node.hostname == "mx1.example.net"
    assert config.node.worker_count() >= 1
    assert [listener.address for listener in config.listener] == [
        "127.0.0.1:2525",
        "unix:/run/angarium/in.sock",
    ]
    assert config.route[0].next_hop == "smtp://127.0.0.1:10026"
    assert config.source["ip 2"].address == "192.0.2.2"
    assert config.pool["default"].sources == {"ip-1": 1, "ip 2": 3}
    assert (config.shaping.default.connections, config.shaping.default.message_rate) == (32, 100.0)
    assert config.queue.default.retry.first == 300
    assert config.queue.default.max_age == 432000
    assert config.resolver.nameservers == ["127.0.0.1:53"]
    assert config.admin.address == "127.0.0.1:8025"


def test_a_relay_needs_five_lines(tmp_path: Path) -> None:
    text = (
        LISTENER + 'relay_from = ["127.0.0.0/8"]\n[[route]]\ndomain = "*"\nnext_hop = "smtp://192.0.2.25"\n'
    )
    config = config_of(tmp_path, text)
    assert config.node.own_hostname()
    assert config.shaping.default.connections == 32
    assert config.queue.default.max_age == 5 * 86400
    assert config.admin.address is None


def test_a_rate_of_none_is_unlimited(tmp_path: Path) -> None:
    assert (
        config_of(tmp_path, f'{LISTENER}[shaping.default]\nmessage_rate = "none"\n').shaping.default.message_rate
        == math.inf
    )


TLS = '[listener.tls]\ncertificates = [{ cert = "/a", key = "/b" }]\n'

REFUSALS = [
    ("", "listener: none: a relay needs at least one [[listener]]"),
    ("listner = []\n", "listner: unknown key"),
    (
        LISTENER + "[auth]\ncredentials = 'hook'\n",
        "auth.credentials: a hook is to know them, but policy.file names none",
    ),
    (
        LISTENER + "[domain.'x.example']\nrecipients = ['hook']\n",
        'domain."x.example".recipients: a hook is to know them, but policy.file names none',
    ),
    (
        LISTENER + "[domain.'x.example']\nrecipients = ['hook', 'call-ahead']\n",
        'domain."x.example".recipients: "call-ahead" and "hook": only one of the two can be asked',
    ),
    ("[node]\nworker = 2\n", "node.worker: unknown key"),
    ("[node]\nworkers = '2'\n", "node.workers: expected integer, got string"),
    ("[node]\nworkers = 65\n", "node.workers: between 0 (one per core) and 64, got 65"),
    ("[node]\nduplicate_window = '10001ms'\n", "node.duplicate_window: between 0s and 10s, got 10s1ms"),
    ("[node]\nsegment_size = '3MiB'\n", "node.segment_size: whole MiB between 4MiB and 1GiB, got 3145728"),
    ("[node]\nsegment_size = '5MB'\n", "node.segment_size: whole MiB between 4MiB and 1GiB, got 5000000"),
    ("[node]\nmin_free = 'lots'\n", 'node.min_free: expected a size such as "50MiB", "10kB" or 65536, got "lots"'),
    ("[node]\nmin_free_inodes = -1\n", "node.min_free_inodes: 0 (no mark) or more, got -1"),
    ("[node]\nworkers = -1\n", "node.workers: between 0 (one per core) and 64, got -1"),
    ("[node]\nspool = 'var/spool'\n", 'node.spool: "var/spool" is not an absolute path'),
    (
        "[node]\nspool = '/" + "x" * 96 + "'\n",
        "node.spool: longer than 96 octets (a unix socket lies in it, unix(7))",
    ),
    ("[node]\nhostname = 'mx_1'\n", 'node.hostname: "mx_1" is not a host name (RFC 5321 §2.3.5)'),
    ("[node]\nhostname = 'a..b'\n", 'node.hostname: "a..b" is not a host name (RFC 5321 §2.3.5)'),
    ("node = 3\n", "node: expected table, got integer"),
    ("listener = {}\n", "listener: expected array, got table"),
    ("[[listener]]\n", "listener[0].address: missing"),
    (
        "[[listener]]\naddress = 25\n",
        'listener[0].address: expected an address such as "127.0.0.1:25", got 25',
    ),
    (
        LISTENER + "[[listener]]\naddress = 'localhost:25'\n",
        'listener[1].address: "localhost:25": "localhost" is not an IP address',
    ),
    (LISTENER + LISTENER, "listener[1].address: 127.0.0.1:2525 is listener[0]'s already"),
    (LISTENER + "relay_from = ['10.0.0.1/8']\n", "listener[0].relay_from[0]: 10.0.0.1/8 has host bits set"),
    (LISTENER + "relay_from = '10.0.0.0/8'\n", "listener[0].relay_from: expected array, got string"),
    (LISTENER + "[listener.tls]\n", "listener[0].tls.certificates: missing"),
    (LISTENER + "[listener.tls]\ncertificates = []\n", "listener[0].tls.certificates: at least one is needed"),
    (LISTENER + TLS + "ciphers = 'ALL'\n", "listener[0].tls.ciphers: unknown key"),
    (LISTENER + TLS + "min_version = '1.1'\n", "listener[0].tls.min_version: "),
    (LISTENER + TLS + "relay_verified = true\n", "listener[0].tls.relay_verified: needs client_ca"),
    (LISTENER + TLS + "relay_certificates = ['ab']\n", "listener[0].tls.relay_certificates[0]: not a SHA-256"),
    (LISTENER + TLS + "client_ca = 'ca.pem'\n", 'listener[0].tls.client_ca: "ca.pem" is not an absolute path'),
    (LISTENER + TLS + "required = true\nstarttls = false\n", "listener[0].tls.required: without starttls"),
    (
        LISTENER + "[listener.tls]\ncertificates = [{ cert = '/a', key = 'b' }]\n",
        'listener[0].tls.certificates[0].key: "b" is not an absolute path',
    ),
    (LISTENER + "protocol = 'pop3'\n", "listener[0].protocol: "),
    (LISTENER + "max_message_octets = '50M'\n", "listener[0].max_message_octets: expected a size such as"),
    (LISTENER + "[[route]]\ndomain = 'a..b'\nnext_hop = 'mx'\n", "route[0].domain: "),
    (LISTENER + "[[route]]\ndomain = '*'\nnext_hop = 'ftp://x'\n", "route[0].next_hop: "),
    (LISTENER + "[source.a]\nadress = '192.0.2.1'\n", "source.a.adress: unknown key"),
    (
        LISTENER + "[source.a]\n[source.'b c']\naddress = 7\n",
        'source."b c".address: expected string or array, got integer',
    ),
    (LISTENER + "[pool.default]\nsources = { a = 1 }\n", "pool.default.sources.a: there is no [source.a]"),
    (
        LISTENER + "[source.ip-1]\n[pool.default]\nsources = { ip-2 = 1 }\n",
        'pool.default.sources.ip-2: there is no [source.ip-2]; did you mean "ip-1"?',
    ),
    (
        LISTENER + "[source.a]\n[pool.default]\nsources = { a = 'x' }\n",
        "pool.default.sources.a: expected integer, got string",
    ),
    (LISTENER + "[pool.other]\nweights = {}\n", "pool.other.weights: unknown key"),
    (LISTENER + "[tenant.shop]\nweight = 0\n", "tenant.shop.weight: between 1 and 1000"),
    (LISTENER + "[tenant.shop]\nshare = 2\n", "tenant.shop.share: unknown key"),
    (LISTENER + '[tenant."a\\tb"]\nweight = 2\n', "tenant: the name 'a\\tb': 1 to 128 printable characters"),
    (
        LISTENER + "[[egress]]\npool = 'bulk'\n[pool.bulk2]\n",
        'egress[0].pool: there is no [pool.bulk]; did you mean "bulk2"?',
    ),
    (
        LISTENER + "[warmup.w]\nsources = ['x']\nbegins = '2026-12-01'\nschedule = [1]\n",
        "warmup.w.sources[0]: there is no [source.x]",
    ),
    (
        LISTENER + "[warmup.w]\nsources = []\nbegins = '2026-13-01'\nschedule = [1]\n",
        'warmup.w.begins: "2026-13-01" is not a date such as "2026-12-01"',
    ),
    (LISTENER + "[shaping.provider.p]\n", "shaping.provider.p.mx: neither mx nor domains: nobody is of this provider"),
    (
        LISTENER + "[shaping.provider.p]\nmx = ['.a.example']\n",
        'shaping.provider.p.mx[0]: ".a.example" is neither a host name nor "*." and a domain',
    ),
    (LISTENER + "[shaping.provider.\"a\\nb\"]\nmx = ['a']\n", "shaping.provider: the name 'a\\nb': 1 to 128"),
    (
        LISTENER + "[source.x]\n[warmup.w]\nsources = ['x']\nbegins = '2026-12-01'\n"
        "schedule = [1]\nproviders = { p = [1] }\n",
        "warmup.w.providers.p: there is no [shaping.provider.p]",
    ),
    (LISTENER + "[source.x]\nconnections = 3\n", "source.x.connections: unknown key"),
    (
        LISTENER + "[source.x]\n[shaping.source.x]\nall_sites = { connections = 0 }\n",
        "shaping.source.x.all_sites.connections: between 1 and 65535",
    ),
    (
        LISTENER + "[source.x]\n[shaping.source.x]\nall_sites = { message_rate = 'unset' }\n",
        'shaping.source.x.all_sites.message_rate: expected a rate such as "100/s"',
    ),
    (
        LISTENER + "[source.a]\nproxy = { kind = 'haproxy', server = '192.0.2.1:1' }\n",
        "source.a.address: a proxy of kind haproxy is to be told one that it has",
    ),
    (
        LISTENER + "[source.a]\nproxy = { kind = 'socks5', server = 'proxy:1080' }\n",
        'source.a.proxy.server: "proxy:1080" is not like "192.0.2.1:1080"',
    ),
    (LISTENER + "[[egress]]\npool = 'default'\ndomain = 'a..b'\n", 'egress[0].domain: "a..b" is neither'),
    (LISTENER + "[pool.\"a\\u0000b\"]\n", "pool: the name 'a\\x00b': 1 to 128 printable characters"),
    (
        LISTENER + "[source.a]\naddress = ['192.0.2.1', '192.0.2.2']\n",
        'source.a.address: "192.0.2.2" is the second of its family; write a source for each',
    ),
    (LISTENER + "[shaping.host.x]\n", "shaping.host: unknown key"),
    (
        LISTENER + "[shaping.default]\nmessage_rate = 100\n",
        'shaping.default.message_rate: expected a rate such as "100/s"',
    ),
    (LISTENER + "[shaping.default]\nconnections = 0\n", "shaping.default.connections: between 1 and 65535"),
    (LISTENER + "[queue.default]\nmax_age = 5\n", 'queue.default.max_age: expected a duration such as "90s"'),
    (
        LISTENER + "[queue.default.retry]\nfirst = '5x'\n",
        'queue.default.retry.first: expected a duration such as "90s"',
    ),
    (
        LISTENER + "[queue.default]\nretry = { factor = 0.5 }\n",
        "queue.default.retry.factor: between 1 and 100",
    ),
    (LISTENER + "[resolver]\nnameservers = ['127.0.0.1', 'x']\n", "resolver.nameservers[1]: "),
    (LISTENER + "[admin]\naddress = '0.0.0.0:8025'\n", 'admin.address: "0.0.0.0:8025" is not loopback'),
]


@pytest.mark.parametrize(("text", "reason"), REFUSALS, ids=[reason[:40] for _, reason in REFUSALS])
def test_a_refusal_names_the_key_and_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    assert refusal(tmp_path, text).startswith(reason)


def test_toml_that_is_none_is_refused_with_its_line(tmp_path: Path) -> None:
    assert "at line 2" in refusal(tmp_path, "[node]\nhostname =\n")


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{tmp_path}/gone.toml: No such file or directory$"):
        load(tmp_path / "gone.toml")
    (tmp_path / "binary.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8 at octet 5"):
        load(tmp_path / "binary.toml")


def test_included_files_add_tables_and_listeners(tmp_path: Path) -> None:
    write(tmp_path, LISTENER.replace("2525", "2526") + "[node]\nworkers = 3\n", "conf.d/b.toml")
    write(tmp_path, LISTENER.replace("2525", "2527"), "conf.d/a.toml")
    config, tree = load(write(tmp_path, 'include = ["conf.d/*.toml"]\n[node]\nhostname = "mx"\n' + LISTENER))
    assert (config.node.hostname, config.node.workers) == ("mx", 3)
    assert [listener.address.port for listener in config.listener] == [2525, 2527, 2526]
    assert [path.name for path in tree.files] == ["angarium.toml", "a.toml", "b.toml"]


def test_an_error_in_an_included_file_is_told_in_its_own_spelling(tmp_path: Path) -> None:
    included = write(tmp_path, LISTENER.replace("2525", "2526") + "colour = 1\n", "more.toml")
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, 'include = ["more.toml"]\n' + LISTENER))
    assert str(caught.value) == f"{included}: listener[0].colour: unknown key"


def test_a_key_set_in_two_files_is_refused(tmp_path: Path) -> None:
    main = write(tmp_path, 'include = ["more.toml"]\n[node]\nworkers = 2\n' + LISTENER)
    more = write(tmp_path, "[node]\nworkers = 2\n", "more.toml")
    with pytest.raises(ConfigError, match=f"^{more}: node.workers: already set in {main}$"):
        load(main)


@pytest.mark.parametrize(
    ("include", "reason"),
    [
        ('"x.toml"', "include: expected an array of file names"),
        ("[1]", "include[0]: expected a file name"),
        ('["gone.toml"]', "no such file"),
        ('["angarium.toml"]', "is already being read"),
    ],
)
def test_a_bad_include_is_refused(tmp_path: Path, include: str, reason: str) -> None:
    assert reason in refusal(tmp_path, f"include = {include}\n{LISTENER}")


def test_a_pattern_may_match_nothing(tmp_path: Path) -> None:
    assert config_of(tmp_path, f'include = ["conf.d/*.toml"]\n{LISTENER}').listener


def test_the_first_default_path_that_exists_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find(Path("named.toml")) == Path("named.toml")
    write(tmp_path, LISTENER)
    assert find(None) == Path("angarium.toml")


def test_finding_the_daemon_does_not_read_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path, '[node]\nspool = "/x"\n[nonsense]\na = 1\n')
    assert read_location(path).node.spool == "/x"
    with pytest.raises(ConfigError, match=r"node\.spool: expected string"):
        read_location(write(tmp_path, "[node]\nspool = 1\n"))


def test_a_key_with_odd_letters_is_quoted() -> None:
    tree = Tree()
    tree.merge({'a "b"': {"c": 1}}, Path("f"))
    with pytest.raises(ConfigError, match=r'f: "a \\"b\\"": unknown key'):
        decode_tables(tree, Config)


@pytest.mark.parametrize(
    "example", sorted(Path(__file__).parents[2].glob("examples/*.toml")), ids=lambda path: path.name
)
def test_the_examples_are_good(tmp_path: Path, example: Path) -> None:
    assert load(write(tmp_path, example.read_text().replace("@VAR@", "/srv/angarium")))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a=" + "[" * 5000, "nested too deeply"),
        ("a=" + "9" * 5001, "digits"),
        ('include=["' + "x" * 5000 + '"]', "include[0]"),
        ('[node]\nspool="/tmp/a\\u0000b"', "control character"),
        ('[queue.default]\nmax_age="999999999999999999d"', "longer than ten years"),
        ('[shaping.default]\nmessage_rate="99999999999999999999/s"', "more than a million a second"),
        ('[[listener]]\naddress="127.0.0.1:25"\nmax_message_octets="' + "9" * 400 + 'MiB"', "expected a size"),
    ],
    ids=["nesting", "digits", "include", "nul", "age", "rate", "size"],
)
def test_values_beyond_all_sense_are_refused_as_configuration_errors(tmp_path: Path, text: str, what: str) -> None:
    # A reload that met one of these ended the relay: only ConfigError is a refusal.
    path = tmp_path / "angarium.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load(path)
    assert what in str(refused.value)


LOGIN = '[recipients.call_ahead.auth."smtp://hop.example"]\nuser = "relay"\npassword_file = "/etc/angarium/hop"\n'
ROUTE = '[[route]]\nnext_hop = "smtp://hop.example:25"\n'
DOMAIN = '[domain."x.example"]\nnext_hop = "smtp://hop.example"\n'
STRICT = '[shaping.default]\ntls = "required"\n'


@pytest.mark.parametrize(
    ("text", "unproved"),
    [
        (LOGIN, "opportunistic"),                                   # no route: nothing says otherwise
        (LOGIN + ROUTE, "opportunistic"),
        (LOGIN + ROUTE + 'tls = "encrypt"\n', "encrypt"),
        (LOGIN + STRICT + ROUTE + 'tls = "none"\n', "none"),
        (LOGIN + STRICT + ROUTE + ROUTE + 'domain = "x.example"\ntls = "encrypt"\n', "encrypt"),
        (LOGIN + DOMAIN + ROUTE + 'tls = "required"\n', "opportunistic"),
        (LOGIN + ROUTE + 'tls = "required"\n', None),
        (LOGIN + STRICT, None),
        (LOGIN + STRICT + ROUTE, None),
        (LOGIN + STRICT + '[shaping.site."hop.example"]\ntls = "encrypt"\n', "encrypt"),
        (LOGIN + STRICT + '[shaping.site."smtp://hop.example:25"]\ntls = "none"\n' + ROUTE, "none"),
        (LOGIN + STRICT + '[shaping.provider.hop]\nmx = ["*.example"]\ntls = "unset"\n' + ROUTE, "opportunistic"),
        (LOGIN + '[shaping.provider.hop]\nmx = ["*.example"]\ntls = "required"\n' + ROUTE, None),
        (LOGIN + '[shaping.site."hop.example"]\ntls = "required"\n' + ROUTE, None),
        (LOGIN + "allow_unverified = true\n" + ROUTE + 'tls = "encrypt"\n', None),
    ],
)  # fmt: skip
def test_a_password_for_a_next_hop_wants_tls_that_proves_who_gets_it(
    tmp_path: Path, text: str, unproved: str | None
) -> None:
    file = tmp_path / "angarium.toml"
    file.write_text(LISTENER + text)
    if unproved is None:
        assert load(file)
        return
    with pytest.raises(ConfigError) as refusal:
        load(file)
    said = str(refusal.value)
    assert f'tls = "{unproved}" does not prove who gets the password' in said
    assert 'recipients.call_ahead.auth."smtp://hop.example"' in said and "allow_unverified = true" in said


CREDENTIALS = "url = 'https://idp.example/'\ngrant = 'client_credentials'\nclient_secret_file = '/s'\n"
AT_ENDPOINT = '[login.us]\nuser = "us"\n[login.us.token_endpoint]\nclient_id = "r"\n'
LOGIN = '[login.us]\nuser = "us"\npassword_file = "/etc/angarium/us"\n'
TO_MX = f'{LOGIN}[[route]]\nnext_hop = "mx"\n'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f'{TO_MX}login = "uss"\n', r'route\[0\]\.login: .*no \[login\.uss\]; did you mean "us"'),
        (f'{TO_MX}login = "us"\ntls = "none"\n', r"route\[0\]\.tls: .*say allow_clear there"),
        (f'{LOGIN}[[route]]\nnext_hop = "maildir:/m"\nlogin = "us"\n', r"route\[0\].*login: maildir asks for none"),
        (f'{LOGIN}[shaping.domain."x.example"]\nlogin = "them"\n', r'shaping\.domain\."x\.example"\.login'),
        (f'{LOGIN}[shaping.default]\nlogin = "us"\n', r"shaping\.default.*login: would be told to every host"),
        (f'{LOGIN}[source.a]\n[shaping.source.a]\nlogin = "us"\n', r"login: would be told to every host"),
        (f"{LOGIN}token_file = '/t'\n", r"login\.us.*either it or one of token_file"),
        ('[login.us]\nuser = "us"\n', r"login\.us.*external = true alone"),
        ("[login.us]\nexternal = true\n", r"login\.us\.external: needs tls_certificate of \[shaping\]"),
        ('[recipients.call_ahead.auth."smtp://h:25"]\nexternal = true\n', r'auth\."smtp://h:25"\.external: needs'),
        ("[login.us]\nexternal = true\nallow_clear = true\n", r"login\.us.*allow_clear: without TLS there is no cert"),
        ('[login.us]\npassword_file = "/p"\nexternal = true\n', r"login\.us.*user: 1 to"),
        (f'{LOGIN}mechanisms = ["EXTERNAL"]\n', r"login\.us.*does nothing with password_file"),
        (f'{LOGIN}mechanisms = ["XOAUTH2"]\n', r"login\.us.*does nothing with password_file"),
        (f'{LOGIN}hosts = ["a*.example"]\n', r"login\.us.*neither a host name nor"),
        ('[login.us]\nuser = "us"\npassword_file = "us"\n', r"login\.us.*not an absolute path"),
        (f'{LOGIN}token_command = ["/bin/t"]\n', r"login\.us.*either it or one of"),
        ('[login.us]\nuser = "us"\ntoken_command = ["t"]\n', r"login\.us.*token_command\[0\].*not an absolute path"),
        ('[login.us]\nuser = "us"\ntoken_command = ["/t"]\ntoken_timeout = "1h"\n', r"token_timeout: between"),
        ('[login.us]\nuser = "us"\ntoken_command = ["/t"]\nmechanisms = ["PLAIN"]\n', r"nothing with token_command"),
        (f"{AT_ENDPOINT}{CREDENTIALS.replace('https', 'http')}", r'token_endpoint.*expected "https://host/path"'),
        (f"{AT_ENDPOINT}{CREDENTIALS.replace('idp', 'a@idp')}", r'token_endpoint.*expected "https://host/path"'),
        (f"{AT_ENDPOINT}url = 'https://idp.example/'\ngrant = 'client_credentials'\n", r"secret_file: must be set"),
        (f"{AT_ENDPOINT}{CREDENTIALS}refresh_token_file = '/r'\n", r"refresh_token_file: does nothing"),
        (f"{AT_ENDPOINT}url = 'https://idp.example/'\ngrant = 'refresh_token'\n", r"refresh_token_file: must be set"),
        (f"{AT_ENDPOINT}url = 'https://idp.example/'\ngrant = 'password'\n", r"login\.us\.token_endpoint\.grant"),
    ],
)
def test_logins_that_cannot_be_are_refused_with_their_key(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        config_of(tmp_path, LISTENER + text)


def test_secrets_and_commands_of_logins_are_looked_at_beforehand(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("word\n")
    secret.chmod(0o600)
    command = tmp_path / "fetch"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o700)
    text = (
        f'{LISTENER}[login.a]\nuser = "a"\ntoken_command = ["{command}"]\n[login.b]\nuser = "b"\n'
        f'[login.b.token_endpoint]\nurl = "https://idp.example/"\ngrant = "client_credentials"\nclient_id = "r"\n'
        f'client_secret_file = "{secret}"\n'
    )
    path = tmp_path / "angarium.toml"
    path.write_text(text)
    check_secrets(*load(path))
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match=r"login\.b\.token_endpoint: .*mode 0644 lets others read"):
        check_secrets(*load(path))
    secret.chmod(0o600)
    command.unlink()
    with pytest.raises(ConfigError, match=r"login\.a\.token_command: .*there is no such file"):
        check_secrets(*load(path))


def test_what_is_delivered_by_is_known_alike_by_who_read_it_and_who_was_sent_it(tmp_path: Path) -> None:
    """Workers compare it: one that was forked has it from the file, others from the supervisor's tables."""
    text = (
        f'{WHOLE}[shaping.provider.g]\nmx = ["*.g.example"]\nmessage_rate = "10/s"\nidle_time = "5s"\n'
        f'[shaping.tenant.t]\nconnections = "unset"\n'
    )
    path = tmp_path / "angarium.toml"
    path.write_text(text)
    config, tree = load(path)
    assert config.delivery_digest() == of_tables(tree.tables).delivery_digest() != Config().delivery_digest()


@pytest.mark.parametrize(
    ("more", "is_another"),
    [
        ("", False),
        ("[policy]\n", False),
        ('[shaping.default]\ntls = "encrypt"\n', True),
        ("[shaping.domain.'y.example']\ndane = false\n", True),
        ('[[route]]\ndomain = "y.example"\nnext_hop = "mx"\ntls = "required"\n', True),
        ("[domain.'y.example']\nnext_hop = \"smtp://127.0.0.1:26\"\n", True),
        ('[resolver]\nnameservers = ["127.0.0.1"]\ntrust_ad = true\n', True),
        ('[login.us]\nuser = "us"\npassword_file = "/us"\nallow_clear = true\n', True),
    ],
)
def test_configurations_that_deliver_otherwise_are_told_apart(tmp_path: Path, more: str, is_another: bool) -> None:
    plain = config_of(tmp_path, LISTENER).delivery_digest()
    assert (config_of(tmp_path, LISTENER + more).delivery_digest() != plain) == is_another
