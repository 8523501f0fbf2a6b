# Polyclinic. `make` lists what can be done; every target first sets up .venv (deploy/local/bootstrap.py).

PYTHON ?= python3
# Elsewhere only where the file system of this clone can't hold it and has no links (deploy/local/README.md).
VENV    = $(shell test -e .venv && echo .venv/bin || $(PYTHON) deploy/local/bootstrap.py --where)
CLINIC  = $(VENV)/clinic
PYTEST  = $(VENV)/python -m pytest
# Two workers: the whole suite is meant for a machine with two cores.
WORKERS ?= 2

SERVICES := $(patsubst services/%/pyproject.toml,%,$(wildcard services/*/pyproject.toml))
PACKAGES := clinic_shared clinic_gateway clinic_local $(foreach s,$(SERVICES),clinic_$(subst -,_,$(s)))
TEST_DIRS := $(foreach folder,$(wildcard shared/tests gateway/tests deploy/local/tests services/*/tests \
	tests/contract tests/hostile tests/browser tests/clients tests/deploy tests/observability tests/e2e tests/modules tests/chaos tests/load),\
	$(if $(wildcard $(folder)/test_*.py $(folder)/*/test_*.py),$(folder)))
# What starts the whole system or kills processes runs by itself, one after the other.
WHOLE := $(filter tests/e2e tests/modules tests/load,$(TEST_DIRS))
KILLING := $(filter tests/chaos,$(TEST_DIRS)) $(wildcard deploy/local/tests/test_system.py \
	shared/tests/messaging/test_broker_killed.py)
PARALLEL := $(filter-out $(WHOLE) $(KILLING),$(TEST_DIRS))
# Test functions needn't be annotated; all else is as strict as in the sources.
MYPY_TESTS := --explicit-package-bases --allow-untyped-defs --allow-incomplete-defs --allow-untyped-calls \
	--allow-untyped-decorators --no-warn-return-any

.DEFAULT_GOAL := help
.PHONY: help up down restart status logs reset doctor demo lab seed check test lint types contracts security bench load fmt bootstrap \
	release-contracts bootstrap-checks chaos test-extended test-fresh test-modules

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

bootstrap:
	@$(PYTHON) deploy/local/bootstrap.py

# With what only tests and measurements need, and `make up` needn't wait for.
bootstrap-checks:
	@$(PYTHON) deploy/local/bootstrap.py --group checks

up: bootstrap ## start everything on this machine; services are left out with WITHOUT=reporting,billing
	@$(CLINIC) up $(if $(WITHOUT),--without $(WITHOUT))

down: bootstrap ## stop everything
	@$(CLINIC) down

restart: bootstrap ## stop and start; one service with S=scheduling
	@$(CLINIC) restart $(S)

status: bootstrap ## what runs: processes, memory, queues, outboxes, held messages
	@$(CLINIC) status

logs: bootstrap ## the logs; of one service with S=scheduling
	@$(CLINIC) logs $(S)

reset: bootstrap ## remove all local data; asks first (YES=1 doesn't)
	@$(CLINIC) reset $(if $(YES),--yes)

doctor: bootstrap ## check this machine and print fixes
	@$(CLINIC) doctor

demo: bootstrap ## tell one patient's journey on the running system
	@$(CLINIC) demo

lab: bootstrap ## post an HL7 file and show where it ends: make lab FILE=message.hl7
	@test -n "$(FILE)" || { echo "usage: make lab FILE=message.hl7" >&2; exit 2; }
	@$(CLINIC) lab send "$(FILE)"

seed: bootstrap ## fill the running system with the demo network
	@$(CLINIC) seed

check: bootstrap-checks lint types ## lint, types and the tests that need no servers, in under a minute
	@$(PYTEST) -q -n $(WORKERS) --dist loadfile -m "not servers and not chaos and not slow" $(PARALLEL)

# Run tests (2) with options (1), and what failed once more. What kills processes is never tried twice: what is lost once
# in ten times is lost.
once_more = $(PYTEST) $(1) $(2) || { test $$? -eq 1 && echo "$(FLAKY)" >&2 && \
	$(PYTEST) --last-failed --last-failed-no-failures none $(2); }
FLAKY = What failed runs once more, by itself. What passes now depends on time or order: mend it.

test: ## everything, with servers of its own; one service with S=scheduling
ifdef S
test: bootstrap-checks
	@$(PYTEST) $(wildcard services/$(S)/tests $(S)/tests deploy/$(S)/tests tests/$(S))
else
test: bootstrap-checks lint types contracts
	@$(call once_more,-q -n $(WORKERS) --dist loadfile,-m "not chaos" $(filter-out tests/contract,$(PARALLEL)))
	@$(call once_more,,-m "not extended" $(WHOLE))
	@$(PYTEST) -m "not extended" $(KILLING)
endif

chaos: bootstrap-checks ## faults under load and what came of it: make chaos SEED=1 DURATION=120; FAULTS=1000 ends it then
	@$(VENV)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(DURATION),--duration $(DURATION)) \
		$(if $(FAULTS),--faults $(FAULTS)) $(if $(ONLY),--only "$(ONLY)")

test-extended: bootstrap-checks ## minutes on whole systems: requests made from the API's description, two releases at once, faults
	@$(PYTEST) -m extended tests/e2e tests/upgrade tests/chaos shared/tests/messaging

test-modules: bootstrap-checks ## a whole system without each service that can be left out; takes minutes
	@$(PYTEST) tests/modules/each_left_out.py

test-fresh: ## the README's two commands on newly installed Debian 12 and 13; as root; FRESH_TEST=quick for make check
	@cd tests && PYTHONPATH=../deploy/local $(PYTHON) -m fresh

lint: bootstrap ## ruff, formatting and the import rules
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check --quiet . || { echo "run: make fmt" >&2; exit 1; }
	@$(VENV)/lint-imports

types: bootstrap-checks ## mypy --strict on sources and tests
	@$(VENV)/mypy $(foreach package,$(PACKAGES),-p $(package))
	@$(VENV)/mypy deploy/local/bootstrap.py
	@cd tests && ../$(VENV)/mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache -p fresh
	@$(VENV)/mypy $(MYPY_TESTS) tests/load $(filter-out services/lab-integration/% tests/load,$(TEST_DIRS))
	@# A hyphen can't be part of a module's name, so this member's tests are a run of their own.
	@cd services/lab-integration && ../../$(VENV)/mypy --config-file ../../pyproject.toml \
		--cache-dir ../../.mypy_cache $(MYPY_TESTS) tests

contracts: bootstrap-checks ## producers, consumers and generated files against contracts/
	@$(PYTEST) -q tests/contract

release-contracts: bootstrap ## freeze the event schemas as released, if they are compatible with the last release
	@$(VENV)/python -m clinic_shared.contracts release

security: ## the hostile tests, and bandit, pip-audit, secrets, an SBOM; the last line counts passed and failed
	@$(PYTHON) deploy/local/bootstrap.py --group checks --group security
	@$(VENV)/python -m tests.hostile

bench: bootstrap-checks ## measure against limits of the same run, into .run/bench.json; BENCH_ONLY=relay
	@cd tests/load && ../../$(VENV)/python -m bench

load: bootstrap-checks ## reception, phones, laboratories and payers at once, against an idle platform; LOAD_USERS=2
	@cd tests/load && ../../$(VENV)/python -m bench.journeys

fmt: bootstrap ## format the code
	@$(VENV)/ruff format --quiet .
	@$(VENV)/ruff check --fix --quiet . || true
