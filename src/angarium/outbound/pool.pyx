# The connections of one ready queue. It decides when to dial, which connection takes the next message, and how
# long a site that cannot be reached is left alone. Not here: where to connect (dialer.py), the dialogue
# (connection.pyx), the limits of the whole machine (queue: may_connect).
#
# Who takes the next message. A connection that is at work takes its next message by itself, in the same write as
# the body of the last one; an idle one needs two round trips. So, where transactions are quick, as many messages as
# there are busy connections are left for those, and only what is over that wakes idle ones. Where they are slow
# (over PATIENCE_MS), nothing waits for a busy connection. What was left is looked at again after RECHECK_S.
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint64_t

from angarium.metrics.counters cimport Counter
from angarium.model.clock cimport mono_ms
from angarium.outbound.connection cimport Connection, ConnectionOwner
from angarium.queue.ready cimport ReadyQueue
from angarium.queue.scheduler cimport Scheduler
from angarium.sockets.poll cimport Poll

from angarium.metrics.counters import counter, gauge
from angarium.model.plan import TlsWish
from angarium.outbound.dialer import SiteUnreachable, SourceDown
from angarium.outbound.tls_contexts import Material
from angarium.outbound.tls_policy import at_host, is_met, policy_of, with_login

cdef Counter dials_started = counter("angarium_outbound_dials_total", "Times a connection to a site was begun.")
cdef Counter dials_failed = counter("angarium_outbound_dials_failed_total", "Dials that reached no host of a site.")
cdef Counter pool_busy = gauge("angarium_outbound_busy_connections", "Outbound connections with work in hand.")

cdef enum:                      # Connection.place
    OUTSIDE = 0                 # being dialled, or gone
    BUSY
    IDLE
    LEAVING

cdef double PATIENCE_MS = 20.0      # judged: a delay that nobody notices, and far above a round trip in a data centre
cdef double RECHECK_S = 0.1
cdef double TURN_PAUSE_S = 0.3       # longer than a worker without a place waits before it asks again
cdef enum:
    TURN_TRANSACTIONS = 100     # judged: a connection's set-up costs about as much as ten
cdef double NEVER_NARROWED = 100000.0    # above any limit: a site that has shown no trouble gets all that is allowed soon
cdef double NARROW_PAUSE_S = 1.0     # judged: longer than one cause takes to end all connections, shorter than a try again


@cython.final
cdef class Pool(ConnectionOwner):

    def __init__(self, ReadyQueue ready not None, dialer, options, int deadline_kind, on_empty, Poll poll not None):
        self.poll = poll
        self.ready = ready
        self.scheduler = <Scheduler?>ready.ledger
        self.loop = ready.ledger.loop
        self.dialer = dialer
        self.options = options
        self.on_empty = on_empty
        self.deadline_kind = deadline_kind
        self.connections = set()
        self.dials = set()
        self.stale_dials = None
        self.window = options.window_first
        self.average_ms = PATIENCE_MS + 1       # unknown: nothing waits for a busy connection
        self.site_pause_s = options.site_pause_first_s
        self.dial_after_s = 0.0
        self.threshold = NEVER_NARROWED
        self.narrowed_s = -NARROW_PAUSE_S
        self.login = ""
        self.look_at_limits()

    cdef int look_at_limits(self) except -1:
        self.limits = self.ready.limits
        cdef Connection connection
        shaping = self.limits.options
        # A unix socket asks for none.
        login = (self.ready.site.login or shaping.login) if self.ready.site.protocol != "lmtp+unix" else ""
        options = self.dialer.logins.options_of(login) if login else None
        if login != self.login or options != self.login_options:
            # Nobody's mail goes over a connection that was opened as somebody else.
            self.login, self.login_options = login, options
            for connection in self.connections:
                connection.is_worn_out = True
        policy = with_login(policy_of(self.ready.site, TlsWish(self.ready.wish), shaping), options)
        material = Material(shaping.tls_ca, shaping.tls_certificate)
        for connection in self.connections:
            # Nor over one that showed another certificate, or trusted others; or that is in clear since TLS with those failed.
            if material != self.material and connection.attempt.policy.wants_tls:
                connection.is_worn_out = True
            if policy != self.policy:
                connection.site = None                  # the next message has its host judged anew: is_good_still()
        if (policy, material) != (self.policy, self.material):
            if self.dials:
                self.stale_dials = set(self.dials)
        self.policy, self.material = policy, material
        self.tls_floor = policy.floor
        self.idle_ms = <uint64_t>(shaping.idle_time * 1000)
        return 0

    cdef bint is_good_still(self, Connection connection) except -1:
        """Whether a plan made since it was dialled asks no more of its host: TLSA records come, go and change."""
        site = self.ready.site
        asked = None if self.policy.heeds_published else self.policy
        for host in site.hosts:
            if (host.name, host.port) == (connection.host_key[0], connection.host_key[2]):
                asked = at_host(self.policy, site, host)
                break
        # Of a host that the plan does not name any more, or not just now, nobody knows what is asked.
        if asked is None or not is_met(asked, connection.tls_level, connection.attempt.policy):
            return False
        connection.site = site
        return True

    # ---------------------------------------------------------------- work comes

    cdef void wake(self) noexcept:
        # Called for every recipient: what arrives in one turn of the loop is handed out together.
        if self.is_due or self.is_draining:
            return
        try:
            self.loop.call_soon(self.distribute)
            self.is_due = True
        except Exception:
            pass                                # the loop is closing: mail stays in the spool

    def distribute(self):
        self.is_due = False
        self.hand_out(False)

    def look_again(self):
        self.is_patient = False
        self.hand_out(True)

    cdef void hand_out(self, bint is_overdue) noexcept:
        cdef Connection c
        cdef uint64_t left, before
        cdef bint is_quick = self.average_ms <= PATIENCE_MS and not is_overdue
        if self.is_draining or self.ready.paused_until_mono_s != 0.0:
            return
        while self.ready.count > (self.busy_count if is_quick else 0) and self.idle_top is not None:
            c = self.idle_top
            before = c.taken_count
            self.put(c, BUSY)
            c.start()
            if c.taken_count == before:         # nothing to be had after all (paused, or the rate is used up)
                break
        if self.ready.paused_until_mono_s != 0.0:
            return                              # the rate is used up: another connection would not make it more
        left = self.busy_count if is_quick else 0
        if self.ready.count > left:
            self.dial(self.ready.count - left)
        if self.ready.count and is_quick:
            self.look_again_later()

    cdef void look_again_later(self) noexcept:
        if self.is_patient:
            return
        try:
            self.loop.call_later(RECHECK_S, self.look_again)
            self.is_patient = True
        except Exception:
            pass                                # the loop is closing

    # ---------------------------------------------------------------- what connections tell

    cdef bint may_take(self, Connection connection) noexcept:
        cdef uint64_t limit = self.ready.messages_per_connection
        if self.is_draining or connection.is_worn_out or limit and connection.taken_count >= limit:
            return False
        limit = connection.session.mail_limit               # MAILMAX, RFC 9422
        if limit and connection.taken_count >= limit:
            return False
        if self.limits is not self.ready.limits:
            try:
                self.look_at_limits()
            except Exception:
                return False
            if connection.is_worn_out:
                return False
        if self.is_shedding:
            if self.is_narrowed and self.busy_count + self.idle_count > self.window:
                return False
            self.is_narrowed = False
            if self.ready.is_over and self.give_up(connection):
                return False
            self.is_shedding = self.ready.is_over
        if self.ready.share.is_wanted_beside(self.ready.number) and \
                (self.ready.count == 0 or connection.taken_count >= TURN_TRANSACTIONS
                 or self.ready.share.is_wanted_first and self.ready.places > 1):
            return False                                # another ready queue that is counted with this one needs it more
        if self.ready.way is not None and self.must_yield_gate(connection):
            return False
        if connection.tls_level < self.tls_floor:       # a reload asks for more than when it was dialled
            return False
        if connection.site is not self.ready.site:
            try:
                if not self.is_good_still(connection):
                    return False
            except Exception:
                return False
        return not self.must_yield(connection)

    cdef bint must_yield_gate(self, Connection connection) noexcept:
        if self.ready.count == 0:                       # others may have mail for this place, and we want no other
            self.ready.way.leave_dial_lines(self.ready)
            if self.ready.way.others_wait():
                return True
        if not self.ready.way.must_yield(connection.taken_count >= TURN_TRANSACTIONS):
            return False
        connection.is_worn_out = True                   # it is asked again before it ends, and others may be first in line then
        return True

    cdef void idle(self, Connection connection) noexcept:
        self.put(connection, IDLE)
        self.scheduler.wheel.arm(&connection.deadline.node, self.idle_ms)
        if not self.is_watching and (self.surplus() > 0 or not self.ready.counts_alone() or
                                     self.ready.way is not None and self.ready.way.has_surplus()):
            try:
                self.loop.call_later(RECHECK_S, self.watch_others)
                self.is_watching = True
            except Exception:
                pass                            # the loop is closing

    cdef void shrink(self) noexcept:
        if self.is_draining:
            return                              # they end anyway
        self.is_shedding = True                 # busy ones ask behind their message
        try:
            self.loop.call_soon(self.give_up_idle)
        except Exception:
            pass                                # the loop is closing

    def give_up_idle(self):
        cdef Connection connection = self.idle_top
        cdef Connection below
        while connection is not None and self.ready.is_over and self.give_up(connection):
            below = connection.next_idle
            connection.expired()
            connection = below

    cdef bint give_up(self, Connection connection) noexcept:
        if connection.is_surplus or not self.ready.give_up_place():
            return connection.is_surplus
        connection.is_surplus = connection.is_worn_out = True
        return True

    # Places at a site are the whole machine's (queue/shares). A worker that has more than its part of them gives the
    # surplus back when another asks in vain: idle connections first, and busy ones behind their transaction. At its
    # own part it stops, so that two busy workers do not keep taking places from each other.

    cdef int64_t surplus(self) noexcept:
        return <int64_t>self.ready.share.own - self.ready.connection_limit // self.scheduler.shares.worker_count

    cdef bint must_yield(self, Connection connection) noexcept:
        if self.surplus() <= 0 or not self.ready.share.is_wanted():
            return False
        if self.ready.connection_limit >= self.scheduler.shares.worker_count:
            return self.ready.share.is_wanted_by_less()     # an odd place does not go to and fro
        # Fewer places than workers: one of them is the site's home (handover/). While that changes they take turns.
        if connection.taken_count < TURN_TRANSACTIONS:
            return False
        self.dial_after_s = max(self.dial_after_s, mono_ms() / 1000.0 + TURN_PAUSE_S)
        try:
            self.loop.call_later(TURN_PAUSE_S + 0.01, self.dial_again)
        except Exception:
            pass                                # the loop is closing
        return True

    def watch_others(self):
        cdef Connection connection = self.idle_top
        cdef Connection below
        cdef int64_t surplus = self.surplus()
        self.is_watching = False
        if connection is None:
            return
        if self.ready.share.is_wanted_beside(self.ready.number):
            # Of this worker, for another site or from another source. One in each look: it asks for no more.
            connection.expired()
            connection = self.idle_top
            if connection is None:
                return
        if self.ready.way is not None and self.ready.way.must_yield(False):
            connection.expired()                        # another worker asks for a place of source or tenant
            connection = self.idle_top
            if connection is None:
                return
        if surplus <= 0 and self.ready.counts_alone() and not (self.ready.way is not None and self.ready.way.has_surplus()):
            return
        if surplus > 0 and self.ready.share.is_wanted():
            while connection is not None and surplus > 0:
                below = connection.next_idle
                connection.expired()
                connection = below
                surplus -= 1
        self.is_watching = True
        self.loop.call_later(RECHECK_S, self.watch_others)

    cdef void leaving(self, Connection connection) noexcept:
        self.put(connection, LEAVING)

    cdef void finished(self, Connection connection, uint64_t elapsed_ms) noexcept:
        self.finished_sum += 1
        self.average_ms += (<double>elapsed_ms - self.average_ms) / 8.0
        if self.window < self.ready.connection_limit:
            self.window += 1.0 if self.window < self.threshold else 1.0 / self.window
        self.site_pause_s = self.options.site_pause_first_s
        # What waits is not told again; without this a backlog would keep the connections that it began with.
        if self.ready.count and len(self.dials) + len(self.connections) < self.window:
            self.look_again_later()

    cdef void closed(self, Connection connection, object judgement) noexcept:
        cdef bint was_idle = connection.place == IDLE
        if connection.place == OUTSIDE:
            return                              # its dial tells
        self.put(connection, OUTSIDE)
        self.connections.discard(connection)
        try:
            self.ready.give_place(connection.is_surplus)
            if judgement is not None and not was_idle:      # a peer may tire of an idle connection before we do
                self.narrow()
                if connection.finished_count == 0:
                    # It greets but takes no mail: not to be dialled again at once for every message that waits.
                    self.dialer.remember_broken(connection.host_key)
                    self.put_off_dialling()
            if self.ready.count:
                self.wake()
            self.tell_if_empty()
        except Exception as error:
            self.scheduler.journal.log("error", where="outbound pool", reason=repr(error))

    # ---------------------------------------------------------------- dialling

    cdef void dial(self, uint64_t want) noexcept:
        """Begins connections for `want` recipients that nobody can take, as far as window and limits go."""
        cdef object task
        cdef uint64_t most
        if mono_ms() / 1000.0 < self.dial_after_s:
            return
        if self.ready.metered_ns:
            # As many as are at work at once at that rate, twice over; who took all places would keep others of the limit from
            # theirs. Where transactions take longer than any before, none ends between two looks: then one more.
            most = 1 + <uint64_t>(2e6 * self.average_ms / self.ready.metered_ns)
            if <uint64_t>len(self.connections) + <uint64_t>len(self.dials) >= most:
                if self.finished_seen != self.finished_sum or self.dials:
                    self.finished_seen = self.finished_sum
                    self.look_again_later()
                    return
                most = <uint64_t>len(self.connections) + 1
            want = min(want, most - <uint64_t>len(self.connections))
        try:
            while <uint64_t>len(self.dials) < want and len(self.dials) + len(self.connections) < self.window:
                if self.ready.places and self.surplus() >= 0 and self.ready.share.is_wanted():
                    # What was just yielded is not ours to take back: the other worker asks every 100 ms.
                    self.look_again_later()
                    return
                if self.ready.share.is_wanted_beside(self.ready.number) and \
                        (self.ready.places or self.ready.share.is_wanted_first):
                    # The place that was just given up is the other's; but who has none goes before who wants more.
                    self.look_again_later()
                    return
                if not self.ready.may_connect():
                    return                      # the scheduler wakes us when there is a place
                dials_started.cell[0] += 1
                if self.limits is not self.ready.limits:
                    self.look_at_limits()
                task = self.loop.create_task(self.dialer.dial(self.ready.site, self.ready.source, self.make,
                                                              self.policy, self.material, limits=self.limits.options,
                                                              login=self.login,
                                                              domain=self.ready.domain_in_front()))
                self.dials.add(task)
                task.add_done_callback(self.dialled)
        except Exception as error:
            self.scheduler.journal.log("error", where="dialling", site=self.ready.site.name, reason=repr(error))

    def make(self, attempt):
        """A connection for the dialer to try."""
        cdef bytes hostname = (self.ready.source.ehlo or self.scheduler.hostname).encode("ascii")
        connection = Connection(self, self.ready, self.deadline_kind, hostname,
                                is_lmtp=self.ready.site.protocol != "smtp", attempt=attempt, timeouts=self.limits.timeouts)
        if self.dialer.tracing is not None:
            self.dialer.tracing.look_at(connection)
        return connection

    def dialled(self, task):
        cdef Connection connection
        cdef bint is_stale = self.stale_dials is not None and task in self.stale_dials
        self.dials.discard(task)
        if is_stale:
            self.stale_dials.discard(task)
            if not self.stale_dials:
                self.stale_dials = None
        if task.cancelled():
            self.ready.connection_closed()
            self.tell_if_empty()
            return
        error = task.exception()
        if error is None:
            connection = task.result()
            if not connection.is_closed:
                connection.is_worn_out = is_stale       # a reload came in between: it is not what is asked for now
                self.join(connection)
                return
            error = SiteUnreachable(connection.loss)        # it went between its hello and this turn of the loop
        self.ready.connection_closed()
        dials_failed.cell[0] += 1
        if self.is_draining:                    # it is not for us any more to say what becomes of the queue
            self.tell_if_empty()
            return
        if not isinstance(error, SiteUnreachable):
            self.scheduler.journal.log("error", where="dial", site=self.ready.site.name, reason=repr(error))
            self.put_off_dialling()
        elif isinstance(error, SourceDown):
            self.source_down(error.judgement.trouble)
        else:
            self.site_failed(error.judgement)
        self.tell_if_empty()

    cdef void source_down(self, object trouble) noexcept:
        """Nothing can be sent from our source now; of the site nothing is known."""
        try:
            sources = self.dialer.sources
            is_down = sources is not None and self.ready.source.name in sources.health.down
            self.scheduler.leave_source(self.ready, trouble, is_down)
            self.put_off_dialling()
        except Exception as error:
            self.scheduler.journal.log("error", where="source down", site=self.ready.site.name, reason=repr(error))

    cdef void source_up(self) noexcept:
        self.dial_after_s = 0.0
        self.site_pause_s = self.options.site_pause_first_s
        if self.ready.count:
            self.wake()

    cdef void join(self, Connection connection) noexcept:
        connection.is_in_pool = True
        connection.hello = None
        if self.dialer.tracing is None:
            connection.session.witness = None           # who looked on at the dial has gone
        connection.domains.left = connection.session.domain_limit
        self.connections.add(connection)
        used = None if connection.attempt.login is None else connection.attempt.login.options
        if used != self.login_options:                      # a reload came in between
            connection.is_worn_out = True
        self.put(connection, BUSY)
        connection.start()
        if self.ready.count:
            self.wake()

    cdef void site_failed(self, object judgement) noexcept:
        """No host took a connection. While others work that only slows dialling; else nobody is left to wait for."""
        try:
            self.narrow()
            if self.dials:
                return                          # the last of them decides
            if not self.connections:
                self.window = 1.0               # one is enough to find out whether the site is back
                if judgement.is_permanent:
                    self.ready.fail_all(judgement.trouble)
                else:
                    self.ready.defer_all(judgement.trouble)
            self.put_off_dialling()
        except Exception as error:
            self.scheduler.journal.log("error", where="site failed", site=self.ready.site.name, reason=repr(error))

    cdef void narrow(self) noexcept:
        """A connection was refused, thrown out (421), lost or too slow: half of those that there are must do. Connections that
        one trouble ends together count once."""
        cdef double now_s = mono_ms() / 1000.0
        if now_s - self.narrowed_s < NARROW_PAUSE_S:
            return
        self.narrowed_s = now_s
        # Of those in use, not of those allowed: a window that was never filled would have to be halved for long. The one
        # that has just gone counts.
        self.window = max(1.0, min(self.window, 1.0 + len(self.connections) + len(self.dials)) / 2)
        self.threshold = self.window
        self.is_narrowed = self.is_shedding = True

    cdef int put_off_dialling(self) except -1:
        """One dial an interval to a dead site, not one a message."""
        cdef double delay_s = self.site_pause_s
        cdef double now_s = mono_ms() / 1000.0
        if now_s < self.dial_after_s:
            return 0
        self.dial_after_s = now_s + delay_s
        self.site_pause_s = min(delay_s * 2, self.options.site_pause_max_s)
        self.loop.call_later(delay_s + 0.01, self.dial_again)
        return 0

    def dial_again(self):
        if self.ready.count:
            self.wake()

    cdef void spare(self) noexcept:
        """Other sites wait for places of our source or tenant: idle connections end now."""
        cdef Connection connection = self.idle_top
        cdef Connection below
        if self.ready.count:
            return                          # they are about to be used
        while connection is not None:
            below = connection.next_idle
            connection.expired()
            connection = below

    # ---------------------------------------------------------------- the end

    cdef void drain(self) noexcept:
        """Nothing new; what is in hand ends, then QUIT. on_empty is called when all are gone."""
        cdef Connection connection
        self.is_draining = True
        for task in list(self.dials):
            task.cancel()
        for connection in list(self.connections):
            connection.leave()
        self.tell_if_empty()

    cdef void abort(self) noexcept:
        cdef Connection connection
        self.is_draining = True
        for task in list(self.dials):
            task.cancel()
        for connection in list(self.connections):
            connection.abort()

    cdef int tell_if_empty(self) except -1:
        if self.is_draining and self.is_empty:
            self.on_empty(self)
        return 0

    cdef bint may_be_forgotten(self) noexcept:
        """Nothing is connected, and nothing has to be remembered against the site."""
        return not self.connections and not self.dials and mono_ms() / 1000.0 >= self.dial_after_s

    cdef bint has_had_trouble(self) noexcept:
        return self.threshold < NEVER_NARROWED and self.window < self.ready.connection_limit

    cdef int encrypted_count(self) except -1:
        cdef Connection connection
        cdef int count = 0
        for connection in self.connections:
            count += connection.tls_level > 0
        return count

    @property
    def is_empty(self):
        return not self.connections and not self.dials

    # ---------------------------------------------------------------- places

    cdef void put(self, Connection connection, int place) noexcept:
        """Moves a connection between busy, the idle stack, leaving and outside."""
        if connection.place == place:
            return
        if connection.place == BUSY:
            self.busy_count -= 1
            pool_busy.cell[0] -= 1
        elif connection.place == IDLE:
            if connection.previous_idle is None:
                self.idle_top = connection.next_idle
            else:
                connection.previous_idle.next_idle = connection.next_idle
            if connection.next_idle is not None:
                connection.next_idle.previous_idle = connection.previous_idle
            connection.next_idle = None
            connection.previous_idle = None
            self.idle_count -= 1
        connection.place = <uint8_t>place
        if place == BUSY:
            self.busy_count += 1
            pool_busy.cell[0] += 1
        elif place == IDLE:
            connection.next_idle = self.idle_top
            if self.idle_top is not None:
                self.idle_top.previous_idle = connection
            self.idle_top = connection
            self.idle_count += 1
