# How busy each site is, added up over its ready queues; what `angarium top` shows. In slices: a worker may have a hundred
# thousand ready queues. Rates are of the last minute or so: each look fades what was before and adds what came since.
cimport cython
from libc.math cimport exp
from libc.stdint cimport uint64_t

from angarium.model.clock cimport mono_ms, utc_ms
from angarium.queue.ready cimport ReadyQueue, Remark

from angarium.queue.facts import Reply, SiteRow

cdef enum:
    MINUTE_MS = 60000

cdef double MINUTE_S = 60.0
cdef double LOOK_AGAIN_S = 0.25         # two who look at the same time: the second sees what the first did


# Not for the cyclic collector: a hundred thousand at once would have it look at everything else there is, in one go.
@cython.final
@cython.no_gc
cdef class SiteCount:
    cdef object site
    cdef readonly uint64_t waiting
    cdef readonly uint64_t connections
    cdef uint64_t delivered
    cdef uint64_t deferred
    cdef uint64_t failed
    cdef double recent
    cdef double recent_deferred
    cdef readonly double rate
    cdef bint is_recent         # something has happened within the last minute
    cdef Remark last

    cdef void add(self, ReadyQueue ready, double now_mono_s) noexcept:
        cdef Remark last = ready.replies[len(ready.replies) - 1] if ready.replies else None
        look(ready, now_mono_s)
        self.waiting += ready.count + ready.waits_behind()
        self.connections += ready.places
        self.delivered += ready.delivered_count
        self.deferred += ready.deferred_count
        self.failed += ready.failed_count
        self.recent += ready.recent
        self.recent_deferred += ready.recent_deferred
        if ready.recent_s > 0:
            self.rate += ready.recent / ready.recent_s
        if last is not None and (self.last is None or last.utc_ms > self.last.utc_ms):
            self.last = last
        if ready.delivered_ms and mono_ms() < ready.delivered_ms + MINUTE_MS or \
                last is not None and utc_ms() < last.utc_ms + MINUTE_MS:
            self.is_recent = True

    @property
    def deferral(self):
        """Of recent attempts; of all while there are none: 0 to 1."""
        if self.recent >= 0.5:
            return self.recent_deferred / self.recent
        all_ = self.delivered + self.deferred + self.failed
        return self.deferred / <double>all_ if all_ else 0.0

    @property
    def last_ms(self):
        return self.last.utc_ms if self.last is not None else 0

    @property
    def is_live(self):
        return self.waiting != 0 or self.connections != 0 or self.is_recent

    def row(self):
        last = None
        if self.last is not None:
            last = Reply(self.last.utc_ms / 1000.0, self.last.text, self.last.code, "%d.%d.%d" % self.last.status,
                         self.last.remote, self.last.phase, self.last.count)
        return SiteRow(self.site, self.waiting, self.connections, round(self.rate, 3), round(self.deferral, 4),
                       self.delivered, self.deferred, self.failed, last)


cdef void look(ReadyQueue ready, double now_mono_s) noexcept:
    """Outcomes since the last look, if that was not just now."""
    cdef uint64_t count = ready.delivered_count + ready.deferred_count + ready.failed_count
    cdef double passed_s = now_mono_s - ready.seen_mono_s
    cdef double kept
    if ready.seen_mono_s == 0.0:
        ready.recent = ready.recent_deferred = ready.recent_s = 0.0
    elif passed_s < LOOK_AGAIN_S:
        return
    else:
        kept = exp(-passed_s / MINUTE_S)
        ready.recent = ready.recent * kept + (count - ready.seen_count)
        ready.recent_deferred = ready.recent_deferred * kept + (ready.deferred_count - ready.seen_deferred_count)
        ready.recent_s = ready.recent_s * kept + passed_s
    ready.seen_mono_s = now_mono_s
    ready.seen_count = count
    ready.seen_deferred_count = ready.deferred_count


def count_some(list queues not None, Py_ssize_t start, Py_ssize_t end, dict sites not None, double now_mono_s):
    """Adds ready queues [start, end) to the SiteCount of their sites."""
    cdef Py_ssize_t i
    cdef ReadyQueue ready
    cdef SiteCount site
    for i in range(start, min(end, len(queues))):
        ready = queues[i]
        site = sites.get(ready.site_name)
        if site is None:
            site = SiteCount.__new__(SiteCount)
            site.site = ready.site.name
            sites[ready.site_name] = site
        site.add(ready, now_mono_s)
