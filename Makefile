# Polyclinic. `make` lists what can be done; every target first sets up .venv (deploy/local/bootstrap.py).

PYTHON ?= python3
VENV   := .venv/bin
CLINIC := $(VENV)/clinic
PYTEST := $(VENV)/python -m pytest
# Two workers: the whole suite is meant for a machine with two cores.
WORKERS ?= 2

SERVICES := identity patients scheduling referrals notifications lab-integration billing audit reporting
PACKAGES := clinic_shared clinic_gateway clinic_local $(foreach s,$(SERVICES),clinic_$(subst -,_,$(s)))
# Tests of several members share module names, so each folder of tests is one run of mypy.
TEST_DIRS = $(wildcard shared/tests gateway/tests deploy/local/tests services/*/tests tests/contract tests/e2e tests/chaos tests/load)
# What starts the whole system or kills processes runs by itself, one after the other.
SERIAL = $(wildcard tests/e2e tests/chaos tests/load)
PARALLEL = $(filter-out $(SERIAL),$(TEST_DIRS))

.DEFAULT_GOAL := help
.PHONY: help up down restart status logs reset doctor demo lab seed check test lint types contracts bench fmt bootstrap

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

bootstrap:
	@$(PYTHON) deploy/local/bootstrap.py

up: bootstrap ## start everything on this machine: servers, services, gateway, demo data
	@$(CLINIC) up

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

check: lint types ## lint, types and the tests that need no servers, in under a minute
	@$(PYTEST) -q -n $(WORKERS) --dist loadfile -m "not servers and not chaos and not slow" $(PARALLEL)

test: ## everything, with servers of its own; one service with S=scheduling
ifdef S
test: bootstrap
	@$(PYTEST) $(wildcard services/$(S)/tests $(S)/tests deploy/$(S)/tests tests/$(S))
else
test: lint types contracts
	@$(PYTEST) -q -n $(WORKERS) --dist loadfile -m "not chaos" $(filter-out tests/contract,$(PARALLEL))
	@$(PYTEST) $(SERIAL)
endif

lint: bootstrap ## ruff, formatting and the import rules
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check --quiet . || { echo "run: make fmt" >&2; exit 1; }
	@$(VENV)/lint-imports

types: bootstrap ## mypy --strict on sources and tests
	@$(VENV)/mypy $(foreach package,$(PACKAGES),-p $(package))
	@$(VENV)/mypy deploy/local/bootstrap.py
	@for folder in $(TEST_DIRS); do $(VENV)/mypy $$folder || exit 1; done

contracts: bootstrap ## producers, consumers and generated files against contracts/
	@$(PYTEST) -q tests/contract

bench: bootstrap ## measure against the limits of the same run; writes .run/bench.json
	@$(VENV)/python tests/load/bench.py

fmt: bootstrap ## format the code
	@$(VENV)/ruff format --quiet .
	@$(VENV)/ruff check --fix --quiet . || true
