# Everything from a fresh clone, with Python 3.11+, gcc, make and OpenSSL's headers (Debian 12: tools/bootstrap says or installs what is missing).
#   make run      build what is needed and start a relay on 127.0.0.1:2525
#   make test     the whole test suite
# The proofs of what a 250 is worth, in full (docs/durability.md; the short forms are in make test and make interop):
#   make crash       no power cut, failing call or kill loses acknowledged mail; a disk in memory
#   make soak        kill -9 of processes under load, ROUNDS of them
#   make backlog     kill -9 of a relay with MESSAGES in its queue
#   make stopped     a worker that is stopped for SECONDS
#   make small-disk  a disk of 64 MB that is filled to the last block
#   make faults      system calls that fail: each of the spool's, and of a relay under load, by strace
#   make damage      random damage to a spool, ROUNDS of each kind
#   make day         SEEDS days of traffic on a simulated clock
BIN := .venv/bin
SOURCES := setup.py $(shell find csrc src -name '*.[ch]' -o -name '*.pyx' -o -name '*.pxd')
C_SOURCES := $(filter-out csrc/tests/% csrc/fuzz/%,$(filter csrc/%.c,$(SOURCES)))
JOBS := $(shell nproc)

.PHONY: run build test debug lint bench fuzz interop ctest crash soak backlog stopped small-disk faults damage day instructions clean
.DELETE_ON_ERROR:

run: build var/angarium.toml
	@echo 'angarium will listen on 127.0.0.1:2525; mail for anyone@localhost goes to var/mail/anyone/. From another terminal:'
	@echo
	@echo "    .venv/bin/angarium send --server 127.0.0.1:2525 --to you@localhost --subject hello --body 'first message' && sleep 1 && cat var/mail/you/new/*"
	@echo
	@exec $(BIN)/angarium serve --config var/angarium.toml

build: build/.compiled

.venv/.packages: pyproject.toml tools/bootstrap
	tools/bootstrap run
	@touch $@

.venv/.dev-packages: .venv/.packages
	tools/bootstrap dev
	@touch $@

build/.compiled: $(SOURCES) .venv/.packages
	$(BIN)/python setup.py -q build_ext --inplace --parallel $(JOBS)
	@touch $@

var/angarium.toml: examples/first-run.toml
	@mkdir -p var/mail
	@sed 's|@VAR@|$(CURDIR)/var|g' $< > $@

test: build .venv/.dev-packages
	$(BIN)/python -m pytest --ignore=tests/interop

# A second copy of the package under build/debug, with asserts, bounds checks and, where the compiler has them, sanitizers.
debug: .venv/.dev-packages build
	tools/debug-build
	tools/debug-build --run $(BIN)/python -m pytest -o pythonpath='build/debug tests'

lint: .venv/.dev-packages build
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(CC) -std=c11 -D_GNU_SOURCE -Wall -Wextra -Wpointer-arith -Wstrict-prototypes -Werror -O2 -Icsrc -fsyntax-only $(C_SOURCES)

bench: build .venv/.dev-packages
	$(BIN)/python benchmarks/macro/run.py

# The machines in C, then whole sessions with the coverage of the compiled code: each target for SECONDS.
fuzz: .venv/.dev-packages build
	$(MAKE) -C csrc/fuzz run
	tools/fuzz-sessions $(if $(SECONDS),$(SECONDS),60)

interop: build .venv/.dev-packages
	tools/interop-peers
	$(BIN)/python -m pytest tests/interop

ctest:
	$(MAKE) -C csrc/tests test

crash:
	$(MAKE) -C csrc/crash run

soak: build .venv/.dev-packages
	PYTHONPATH=src:tests $(BIN)/python -m crash.soak --rounds $(if $(ROUNDS),$(ROUNDS),100) $(if $(SEED),--seed $(SEED))

backlog: build .venv/.dev-packages
	ANGARIUM_BACKLOG=$(if $(MESSAGES),$(MESSAGES),1000000) $(BIN)/python -m pytest -n 0 tests/crash/test_backlog.py

stopped: build .venv/.dev-packages
	ANGARIUM_STOPPED_S=$(if $(SECONDS),$(SECONDS),12) $(BIN)/python -m pytest -n 0 tests/end_to_end/test_stopped_worker.py

# On an ext4 of the test's own where that may be mounted; and in any case on the disk in memory of make crash.
small-disk: build .venv/.dev-packages
	$(MAKE) -C csrc/crash states ARGUMENTS='--small-disk 64'
	$(BIN)/python -m pytest -n 0 -s -rs tests/end_to_end/test_small_disk.py

# On the disk in memory of make crash, each call of the spool; then of a whole relay, by strace.
faults: build .venv/.dev-packages
	$(MAKE) -C csrc/crash states ARGUMENTS=--faults
	$(BIN)/python -m pytest -rs tests/interop/test_system_call_faults.py

damage: build .venv/.dev-packages
	ANGARIUM_DAMAGE_ROUNDS=$(if $(ROUNDS),$(ROUNDS),200) ANGARIUM_DAMAGE_SEED=$(if $(SEED),$(SEED),0) $(BIN)/python -m pytest tests/spool/test_damage.py

# Each a quarter of a minute: SEEDS of them, from seed SEED on.
day: build .venv/.dev-packages
	PYTHONPATH=src:tests $(BIN)/python -m simulation.day --seeds $(if $(SEEDS),$(SEEDS),20) --seed $(if $(SEED),$(SEED),1)

instructions: build .venv/.dev-packages
	$(BIN)/python benchmarks/instructions/run.py

clean:
	rm -rf build dist
	find src -name '*.so' -delete
