# `make demo` and `make test` do everything, set-up included.

PYTHON ?= python3
VENV ?= .venv
# Some test files wait more than they compute.
JOBS ?= $(shell expr $$(nproc) + 1)
TESTS ?= tests
TRIALS ?= 20
SEEDS ?= 2000
ROUNDS ?= 3
SAMPLE ?= 300
SECONDS ?= 600
SIM_JOBS ?= $(shell nproc)
# The suites without other processes, sockets or builds: for every Python that the machine has.
QUICK = tests/wire tests/traversal tests/quic tests/core tests/config tests/observe tests/test_identity.py \
	tests/test_pki.py
COVERED ?= $(QUICK) tests/sim tests/hostile

# Without the compiled modules each of the many processes of a run compiles p2pnet again.
unexport PYTHONDONTWRITEBYTECODE

BIN = $(VENV)/bin
# What is installed, by the extras of setup.cfg: a demonstration needs none.
DEMO = $(VENV)/.demo
READY = $(VENV)/.test
CHECK = $(VENV)/.check
FUZZ = $(VENV)/.fuzz

.PHONY: help ready test demo lab sim bench attack figures quick oldest coverage individual mutants fuzz \
	reference lint format typing imports packaging clean

help:  ## list these targets
	@echo "Targets (PYTHON=$(PYTHON) and VENV=$(VENV) can be given):"
	@sed -n 's/^\([a-z]*\):.*## /  \1\t/p' Makefile

ready: $(READY)  ## install p2pnet and what its tests need into VENV

test: $(READY)  ## run the whole test suite (TESTS=tests.test_x for some; JOBS=1: one process)
	@$(BIN)/python -m tests.run -j $(JOBS) $(SWITCHES) $(TESTS)

demo: $(DEMO)  ## start the three roles, download 64 MiB through them, show what happened
	@$(BIN)/p2pnet demo

lab: $(DEMO)  ## every pairing of NAT behaviors, TRIALS=20 times each (hours; namespaces and nftables)
	@$(BIN)/python -m lab matrix --trials $(TRIALS) --delay-ms 25

sim: $(DEMO)  ## SEEDS=2000 runs on a simulated network on which things break (SEED=123 repeats one)
	@$(BIN)/python -m lab sim $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) --jobs $(SIM_JOBS))

bench: $(DEMO)  ## p2pnet beside its peers, ROUNDS=3 times each (half an hour; BRIEF=1: minutes)
	@$(BIN)/python -m bench --rounds $(ROUNDS) $(if $(BRIEF),--brief)

attack: $(READY)  ## attacks, each with its bound and what is measured (20 minutes; BRIEF=1: half of it)
	@$(BIN)/python -m bench.attack $(if $(BRIEF),--brief)

figures: $(READY)  ## what the house measures (circles, sizes, trips), beside 47920a3 and the goals
	@$(BIN)/python -m bench.house

quick: $(READY)  ## run the suites that need nothing but Python
	@$(BIN)/python -m tests.run -j $(JOBS) $(QUICK)

oldest: $(CHECK)  ## run what depends on other packages with their oldest allowed versions
	@$(BIN)/tox run -e oldest

coverage: $(READY) $(CHECK)  ## coverage of lines and branches by COVERED, which is quick, sim and hostile
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m coverage run --parallel-mode --source=p2pnet -m tests.run -j $(JOBS) $(COVERED)
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report

individual: $(READY) $(CHECK)  ## coverage of each module of core/peer and traversal by its own tests alone
	@$(BIN)/python -m tests.individual -j $(JOBS)

mutants: $(READY)  ## change the code of traversal in SAMPLE=300 places, and see whether a test fails
	@$(BIN)/python -m tests.mutants -j $(JOBS) --sample $(SAMPLE)

fuzz: $(READY) $(FUZZ)  ## mutated inputs for every decoder and for whole nodes, for SECONDS=600 together
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

reference: $(READY)  ## write the pages of docs/ that say what the code says
	@$(BIN)/python -m tests.reference

lint: $(CHECK)  ## check the style
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(CHECK)  ## format the code, and mend what can be mended
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

typing: $(READY) $(CHECK)  ## check the types
	$(BIN)/mypy

imports: $(READY)  ## check that each layer imports only those below it
	$(BIN)/lint-imports --config setup.cfg

packaging: $(CHECK)  ## build the wheel and use it away from the checkout
	$(BIN)/tox run -e packaging

clean:  ## remove everything that was built
	rm -rf .venv .venv-* .tox build dist *.egg-info _trial_temp* .hypothesis .mypy_cache \
		.ruff_cache .import_linter_cache .coverage* twisted/plugins/dropin.cache

.DELETE_ON_ERROR:

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "p2pnet needs Python 3.11 or newer, and '$(PYTHON)' is not that." \
			"Name one that is: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		echo "'$(PYTHON) -m venv' does not work (Debian: apt install python3-venv)." >&2; exit 1; }

$(DEMO) $(READY) $(CHECK): setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing p2pnet$(EXTRA) into $(VENV) ..."
	@$(BIN)/python -m pip install --disable-pip-version-check \
		--constraint constraints.txt --editable '.$(EXTRA)'
	@touch $@

$(FUZZ): setup.cfg constraints.txt | $(BIN)/python
	@$(BIN)/python -m pip install --disable-pip-version-check --only-binary atheris \
		--constraint constraints.txt --editable '.[fuzz]' || \
		echo "Atheris has no build for this machine: Hypothesis takes its place."
	@touch $@

$(READY): EXTRA = [test]
$(CHECK): EXTRA = [check]
