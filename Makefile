# Everything from a fresh clone, with Python 3.11+, gcc, make and OpenSSL's headers (Debian 12: tools/bootstrap says or installs what is missing).
#   make run      build what is needed and start a relay on 127.0.0.1:2525
#   make test     the whole test suite
#   make soak     a hundred rounds of kill -9 under load (docs/durability.md)
#   make day      twenty days of traffic on a simulated clock (docs/durability.md)
#   make crash    the proof that no power cut, failing call or kill loses acknowledged mail (docs/durability.md)
BIN := .venv/bin
SOURCES := setup.py $(shell find csrc src -name '*.[ch]' -o -name '*.pyx' -o -name '*.pxd')
C_SOURCES := $(filter-out csrc/tests/% csrc/fuzz/%,$(filter csrc/%.c,$(SOURCES)))
JOBS := $(shell nproc)

.PHONY: run build test debug lint bench fuzz interop ctest crash soak day instructions clean
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
	PYTHONPATH=src:tests $(BIN)/python -m crash.soak --rounds 100

# Each a quarter of a minute: SEEDS of them, from seed SEED on.
day: build .venv/.dev-packages
	PYTHONPATH=src:tests $(BIN)/python -m simulation.day --seeds $(if $(SEEDS),$(SEEDS),20) --seed $(if $(SEED),$(SEED),1)

instructions: build .venv/.dev-packages
	$(BIN)/python benchmarks/instructions/run.py

clean:
	rm -rf build dist
	find src -name '*.so' -delete
