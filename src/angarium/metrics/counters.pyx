# The registry of counters: one shared table, a row per process, a column per counter.
# It is not an exporter: admin/ turns rows into Prometheus text.
#
# The table is mapped before the daemon forks, so the supervisor reads what workers count without asking
# them. A process writes only its own row; a torn 64-bit read does not exist on the machines we run on.
# Columns are given out in import order, which is the same in all processes because workers are forked.
cimport cython
from libc.stdint cimport int64_t
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap

cdef enum:
    ROWS = 256              # row 0 is the supervisor's (and of every process that is not a worker)
    COLUMNS = 512           # a page is touched only when used

cdef int64_t *table = <int64_t *>mmap(NULL, ROWS * COLUMNS * sizeof(int64_t), PROT_READ | PROT_WRITE,
                                      MAP_SHARED | MAP_ANONYMOUS, -1, 0)
if <void *>table == MAP_FAILED:
    raise MemoryError("no memory for the counter table")

cdef int own_row = 0
_registry = {}


@cython.final
cdef class Counter:
    def __init__(self, *args):
        raise TypeError("use counter() or gauge()")

    def add(self, int64_t amount=1):
        self.cell[0] += amount

    def set(self, int64_t value):
        self.cell[0] = value

    @property
    def value(self):
        return self.cell[0]

    def total(self):
        cdef int row
        cdef int64_t sum_ = 0
        for row in range(ROWS):
            sum_ += table[row * COLUMNS + self.index]
        return sum_

    def of_row(self, int row):
        if not 0 <= row < ROWS:
            raise IndexError(f"row {row} is not below {ROWS}")
        return table[row * COLUMNS + self.index]

    def __repr__(self):
        return f"<Counter {self.name} {self.kind} {self.cell[0]}>"


cdef Counter register(str name, str help_, str kind, dict labels):
    cdef Counter self
    key = (name, *sorted(labels.items()))
    if key in _registry:
        raise ValueError(f"counter {name} is declared twice")
    if len(_registry) >= COLUMNS:
        raise ValueError(f"more than {COLUMNS} counters: raise COLUMNS in metrics/counters.pyx")
    self = Counter.__new__(Counter)
    self.index = len(_registry)
    self.name = name
    self.help = help_
    self.labels = labels
    self.kind = kind
    self.cell = table + own_row * COLUMNS + self.index
    _registry[key] = self
    return self


def counter(str name, str help_, dict labels=None):
    return register(name, help_, "counter", labels or {})


def gauge(str name, str help_):
    return register(name, help_, "gauge", {})


def attach(int row):
    global own_row
    cdef Counter each
    if not 0 <= row < ROWS:
        raise IndexError(f"row {row} is not below {ROWS}")
    own_row = row
    for each in _registry.values():
        each.cell = table + row * COLUMNS + each.index


def forget_gauges(int row):
    cdef Counter each
    if not 0 <= row < ROWS:
        raise IndexError(f"row {row} is not below {ROWS}")
    for each in _registry.values():
        if each.kind == "gauge":
            table[row * COLUMNS + each.index] = 0


def registry():
    return list(_registry.values())
