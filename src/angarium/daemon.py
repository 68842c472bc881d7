"""The composition root: puts the daemon together from its parts, and takes it apart again. Knows everybody.

serve() is `angarium serve`. In the supervisor a Daemon owns what outlives workers: the configuration, the
listening sockets, the lock on the spool, the tables in shared memory, the HTTP API. A worker's parts are put
together in relay.py.

Start-up goes from what is easily undone to what is not: read the configuration, bind, then touch the spool.
Whatever is in the way is one exception with one line, and nothing has been changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from angarium import __version__
from angarium.admin.views import Facts, Listener, WarmupView
from angarium.admission.bounds import Bounds
from angarium.admission.tallies import Tallies
from angarium.config.explain_limits import RunningLines
from angarium.config.location import admin_socket
from angarium.config.schema import Config, check_certificates, check_rules, check_secrets, load, read_hooks
from angarium.events.journal import Journal
from angarium.inbound.quota import Counts
from angarium.inbound.quota_file import NAME as QUOTAS_FILE
from angarium.inbound.quota_file import QuotaFile
from angarium.inbound.socket_options import SocketOptions
from angarium.metrics import counters
from angarium.metrics.counters import counter
from angarium.model.address import ListenAddress
from angarium.model.errors import ConfigError
from angarium.model.printable import printable
from angarium.process import notify, privileges
from angarium.process.activation import passed_sockets
from angarium.process.automation_desk import AutomationDesk
from angarium.process.control import Apply, ControlError
from angarium.process.deputies import Deputies
from angarium.process.listening import CannotListen, Listening, listen_alone
from angarium.process.steward import Steward
from angarium.process.supervisor import Seat, Supervisor
from angarium.process.worker import run as run_worker
from angarium.queue.order_book import OrderBook
from angarium.queue.quiet import quiet_hours
from angarium.queue.ration_file import RationFile
from angarium.queue.rations import Ration, Rations
from angarium.queue.shares import Shares
from angarium.relay import Relay
from angarium.routing.warmup import Warmups
from angarium.spool.directory import SpoolDirectory
from angarium.tls.context import TicketKeys

if TYPE_CHECKING:
    from angarium.admin.server import AdminServer

# Clients of the HTTP API may be kept waiting this long by a reload: workers bind nothing and read no names in
# it.
APPLY_TIMEOUT_S = 10.0

# A key of session tickets seals for so long and opens for twice that; past it nobody can, so that what was recorded of
# resumed TLS 1.2 sessions stays closed (RFC 9325 §3.3). csrc/tls/context.c lets tickets live as long.
TICKET_KEY_S = 12 * 3600.0

# How often counts of warm-ups are written: a crash forgets so much of them.
RATIONS_S = 5.0
# A scan of a table of 10 MB and, while mail is sent, a file of a few KB.
QUOTAS_S = 30.0

reloads = counter("angarium_reloads_total", "Configurations applied while running.")
reloads_refused = counter(
    "angarium_reloads_refused_total", "Reloads refused; the running configuration stayed."
)


def serve(path: Path) -> int:
    """Runs the relay until it is told to stop; returns the exit status.

    Raises AngariumError or OSError when it cannot start.
    """
    with contextlib.ExitStack() as undo:
        return Daemon(path, undo).run()


class Daemon:
    """The supervisor's Owner.

    undo  takes what must be released when the daemon ends, in whatever way.
    """

    def __init__(self, path: Path, undo: contextlib.ExitStack) -> None:
        self._path = path
        self._config, tree = load(path)
        self._tables = tree.tables
        self._lines = RunningLines(self._config, tree)
        node = self._config.node
        account = privileges.account_of(node.user)
        self._descriptors = privileges.raise_descriptor_limit()
        self._listening = Listening(node.worker_count(), passed_sockets())
        undo.callback(self._listening.close_all)
        self._listening.open(_addresses(self._config), _sockets(self._config))
        self._admin_sockets: list[socket.socket] = []
        undo.callback(self._close_admin_sockets)
        if self._config.admin.address is not None:
            self._admin_sockets.append(listen_alone(self._config.admin.address))
        if account is not None:
            privileges.give_directory(node.spool, account)
            privileges.become(account)
        # Now, not before: whoever reads them at a reload will be this account.
        check_certificates(self._config, tree)
        check_secrets(self._config, tree)
        check_rules(self._config, tree)
        self._hooks = read_hooks(self._config, tree)
        self._spool = SpoolDirectory.open(node.spool)
        undo.callback(self._spool.close)
        own_socket = admin_socket(node.spool)
        self._admin_sockets.append(listen_alone(own_socket, mode=0o600))
        undo.callback(_unlink, own_socket.path)
        self._shares = Shares(worker_count=node.worker_count())
        self._tickets = TicketKeys()
        self._counts = Counts(worker_count=node.worker_count())
        self._quota_file = QuotaFile(self._spool.fd, self._counts.sent)
        self._tallies = Tallies()
        self._bounds = Bounds(workers=node.worker_count())
        self._rations = Rations()
        self._ration_file = RationFile(self._spool.fd)
        self._warmups = Warmups(self._config.warmup, self._config.shaping.provider, self._rations)
        self._book = OrderBook(self._spool.fd)
        self._journal = Journal(sys.stdout.fileno())
        self._admin: AdminServer | None = None
        self._reload_lock = asyncio.Lock()
        self._supervisor = Supervisor(self, node.worker_count())
        self._deputies = Deputies(self._supervisor, self._listening)
        self._automation = AutomationDesk(self._supervisor, self._spool.fd, self.log, self._config.automation.rules)
        self._steward = Steward(
            self._supervisor,
            self._book,
            self.log,
            lambda: self._config.pool,
            lambda: self._config.queue.default.max_age,
            automatic=self._automation,
            quiet=lambda: quiet_hours(self._config.quiet),
        )
        self._automation.push = self._steward.push
        self._supervisor.on_noticed = self._automation.on_noticed

    def run(self) -> int:
        self._restore_rations()
        self._restore_quotas()
        self._restore_orders()
        status = self._supervisor.run()
        self._save_rations()
        self._save_quotas()
        self._automation.save()
        self._journal.flush()
        if self._supervisor.failure:
            print(f"angarium: {printable(self._supervisor.failure)}", file=sys.stderr)
        return status

    # What the supervisor asks of its Owner.

    def descriptors(self, number: int) -> list[int]:
        sockets = self._listening.of_worker(number).values()
        return [self._spool.fd, *(sock.fileno() for sock in sockets)]

    def work(self, seat: Seat) -> int:
        async def open_relay(loop: asyncio.AbstractEventLoop) -> Relay:
            sockets = list(self._listening.of_worker(seat.number).items())
            return await Relay.open(
                seat,
                loop,
                self._config,
                self._shares,
                self._counts,
                tallies=self._tallies,
                bounds=self._bounds,
                rations=self._rations,
                hooks=self._hooks,
                spool=self._spool,
                sockets=sockets,
                tickets=self._tickets,
                standing=self._steward.standing(),
            )

        return run_worker(seat, open_relay)

    def log(self, event: str, **fields: str | int | float) -> None:
        self._journal.log(event, **fields)

    def buried(self, number: int) -> None:
        counters.forget_gauges(number + 1)
        self._shares.forget_worker(number)
        self._tallies.forget_worker(number)
        self._bounds.forget_worker(number)

    async def ready(self) -> None:
        # Loaded only now: workers forked before do without these modules' memory.
        from angarium.admin.api import application
        from angarium.admin.server import AdminServer
        from angarium.process.desk import Desk

        desk = Desk(
            self._supervisor,
            self._facts,
            self.reload_or_refuse,
            self._warmups_now,
            lines=self._lines,
            in_force=self._steward.in_force,
        )
        self._admin = AdminServer(application(desk, self._steward, self._automation))
        self._supervisor.spawn(self._admin.serve(self._admin_sockets))
        self._supervisor.spawn(self._deputies.run())
        self._steward.start()
        self._automation.start()
        asyncio.get_running_loop().call_later(TICKET_KEY_S, self._rotate_tickets)
        asyncio.get_running_loop().call_later(RATIONS_S, self._go_on_saving_rations)
        asyncio.get_running_loop().call_later(QUOTAS_S, self._go_on_saving_quotas)
        for passed in self._listening.unused:
            self.log("socket-unused", name=passed.name, address=str(passed.address))
        listeners = ", ".join(listener.actual for listener in self._listeners())
        self.log("started", version=__version__, workers=self._supervisor.count, listeners=listeners)
        self._tell_few_descriptors()
        print(
            f"angarium {__version__} listens on {listeners}: {self._supervisor.count} workers, "
            f"spool {self._config.node.spool}",
            file=sys.stderr,
        )
        notify.notify_ready()

    def _warmups_now(self) -> list[WarmupView]:
        return [
            WarmupView(source, provider, ration.count(), limit)
            for source, provider, ration in self._warmups.all()
            if isinstance(ration, Ration) and (limit := ration.limit_today()) is not None
        ]

    def _all_rations(self) -> list[Ration]:
        return [ration for _, _, ration in self._warmups.all() if isinstance(ration, Ration)]

    def _restore_rations(self) -> None:
        """Before any worker counts."""
        try:
            self._ration_file.restore(self._all_rations())
        except (OSError, ValueError) as error:
            self.log("error", where="warmup.json", reason=f"counts of today begin at 0: {error}")

    def _restore_orders(self) -> None:
        """Before any worker routes mail."""
        try:
            self._book.restore()
        except (OSError, ValueError) as error:
            self.log("error", where="orders.json", reason=f"no order holds: {error}")
        self._automation.restore()

    def _save_rations(self) -> None:
        try:
            self._ration_file.save(self._rations.day, self._all_rations())
        except OSError as error:
            self.log("error", where="warmup.json", reason=str(error))

    def _go_on_saving_rations(self) -> None:
        self._save_rations()
        asyncio.get_running_loop().call_later(RATIONS_S, self._go_on_saving_rations)

    def _restore_quotas(self) -> None:
        """Before any worker counts."""
        try:
            self._quota_file.restore()
        except (OSError, ValueError) as error:
            self.log("error", where=QUOTAS_FILE, reason=f"quotas begin anew: {error}")

    def _save_quotas(self) -> None:
        if not self._config.auth.quota:      # nobody is counted, and to look would take the memory of the whole table
            return
        try:
            self._quota_file.save()
        except OSError as error:
            self.log("error", where=QUOTAS_FILE, reason=str(error))

    def _go_on_saving_quotas(self) -> None:
        self._save_quotas()
        asyncio.get_running_loop().call_later(QUOTAS_S, self._go_on_saving_quotas)

    def _rotate_tickets(self) -> None:
        self._tickets.rotate()
        asyncio.get_running_loop().call_later(TICKET_KEY_S, self._rotate_tickets)

    async def reload(self) -> None:
        notify.notify_reloading()
        with contextlib.suppress(ConfigError):
            await self.reload_or_refuse()
        notify.notify_ready()

    async def stopping(self) -> None:
        notify.notify_stopping()
        if self._supervisor.is_ready:
            self.log("stopping", reason=self._supervisor.failure or "told to")
        self._deputies.stop()
        if self._admin is not None:
            self._admin.should_exit = True

    # Reloading.

    async def reload_or_refuse(self) -> None:
        """Reads the configuration again and has everybody work by it.

        Raises ConfigError with the reason, also logged; then everybody goes on as before.
        """
        async with self._reload_lock:
            try:
                await self._reload()
            except ConfigError as error:
                reloads_refused.add(1)
                self.log("reload-refused", reason=str(error))
                raise
        reloads.add(1)
        self.log("reloaded", file=str(self._path))
        self._tell_few_descriptors()

    async def _reload(self) -> None:
        try:
            config, tree = load(self._path)
            check_certificates(config, tree)
            check_secrets(config, tree)
            check_rules(config, tree)
            hooks = read_hooks(config, tree)
        except ConfigError:
            raise
        except Exception as error:
            # Whatever a file can make go wrong while nothing is applied yet: the relay goes on as it was.
            raise ConfigError(f"{self._path}: cannot be read: {error!r}") from None
        for key, old, new in _fixed_keys(self._config, config):
            if old != new:
                raise ConfigError(f"{self._path}: {key}: a change from {old} to {new} needs a restart")
        try:
            opened = self._listening.open(_addresses(config), _sockets(config))
        except CannotListen as error:
            raise ConfigError(f"{self._path}: {error}") from None
        # Both at once: a worker that is forked while the others are told starts with what is set here.
        old_tables, old_config, old_hooks = self._tables, self._config, self._hooks
        self._tables, self._config, self._hooks = tree.tables, config, hooks
        try:
            await self._apply(_addresses(config))
        except ControlError as error:
            # Those who have applied it go back.
            self._tables, self._config, self._hooks = old_tables, old_config, old_hooks
            with contextlib.suppress(ControlError):
                await self._apply(_addresses(self._config))
            self._listening.close(opened)
            raise ConfigError(f"{self._path}: not applied: {error}") from None
        self._warmups = Warmups(config.warmup, config.shaping.provider, self._rations)
        self._lines.replace(config, tree)
        self._automation.set_rules(config.automation.rules)
        wanted = set(_addresses(config))
        self._listening.close([address for address in self._listening.addresses if address not in wanted])

    async def _apply(self, addresses: list[ListenAddress]) -> None:
        """Has every worker work by self._tables. Raises ControlError of the first that does not."""

        async def of_worker(number: int) -> None:
            sockets = self._listening.of_worker(number)
            request = Apply(tables=self._tables, addresses=[str(address) for address in addresses], hooks=self._hooks)
            fds = [sockets[address].fileno() for address in addresses]
            worker = self._supervisor.workers.get(number)
            if worker is not None:
                await worker.call(request, type(None), fds=fds, timeout_s=APPLY_TIMEOUT_S)

        outcomes = await asyncio.gather(
            *(of_worker(number) for number in range(self._supervisor.count)), return_exceptions=True
        )
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    def _tell_few_descriptors(self) -> None:
        """No reason not to run: max_sessions is a bound, and most relays never come near it."""
        sessions = sum(listener.max_sessions for listener in self._config.listener)
        wanted = privileges.descriptors_wanted(sessions, self._supervisor.count)
        if self._descriptors < wanted:
            self.log("descriptors-few", limit=self._descriptors, wanted=wanted, sessions=sessions)

    def _listeners(self) -> list[Listener]:
        return [
            Listener(address=str(address), actual=str(self._listening.actual(address)))
            for address in self._listening.addresses
        ]

    def _facts(self) -> Facts:
        return Facts(
            hostname=self._config.node.own_hostname(),
            spool=self._config.node.spool,
            config=str(self._path.resolve()),
            listeners=self._listeners(),
        )

    def _close_admin_sockets(self) -> None:
        for sock in self._admin_sockets:
            sock.close()


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _addresses(config: Config) -> list[ListenAddress]:
    return [listener.address for listener in config.listener]


def _sockets(config: Config) -> dict[ListenAddress, SocketOptions]:
    return {listener.address: listener.socket for listener in config.listener}


def _fixed_keys(old: Config, new: Config) -> list[tuple[str, object, object]]:
    """What a running daemon cannot change: key, running value, new value."""
    return [
        ("node.spool", old.node.spool, new.node.spool),
        ("node.workers", old.node.worker_count(), new.node.worker_count()),
        ("node.user", old.node.user, new.node.user),
        ("node.duplicate_window", old.node.duplicate_window, new.node.duplicate_window),
        ("node.segment_size", old.node.segment_size, new.node.segment_size),
        # Queued mail and running sessions have been told the old name.
        ("node.hostname", old.node.own_hostname(), new.node.own_hostname()),
        ("admin.address", old.admin.address, new.admin.address),
    ]
