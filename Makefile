# Every command that this project has; `make` alone says what they are.

PYTHON ?= python3
# Each start of the service in a laboratory would else compile all of it anew.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
STAMP := $(VENV)/.installed
LAB_STAMP := $(VENV)/.installed-lab
BIN := $(VENV)/bin
QUIETLY := -qq --no-compile --disable-pip-version-check --root-user-action=ignore
# Four laboratories, which mostly sleep, beside what computes and gives way to them.
PYTEST := $(BIN)/python -m pytest -n 5 --dist loadgroup --max-worker-restart 0

# For `make install`: the folder of Python's packages on the router.
PYTHON_SITE ?= /usr/lib/python3.11/site-packages
DESTDIR ?=
# What takes comments and blanks out of the pages' scripts, from standard input to standard output.
JSMIN ?=

# Programs and their packages: what the lab needs, and what only tests need.
LAB := ip:iproute2 nft:nftables conntrack:conntrack wg:wireguard-tools \
	wireguard-go:wireguard-go unshare:util-linux
TESTS := dnsmasq:dnsmasq-base udhcpc:udhcpc shellcheck:shellcheck mosquitto:mosquitto \
	openssl:openssl chromium:chromium chromedriver:chromium-driver
# Newer Pythons than the router's oldest; the first that runs is used by `make test-next`.
NEXT ?= python3.14 python3.13 $(wildcard $(HOME)/.pyenv/versions/3.1[3-9]*/bin/python) python3.12

# There: what uses asyncio, sockets, processes and parsers of Python's own.
NEXT_TESTS := tests/unit/system tests/unit/ubus tests/unit/test_tasks.py
NEXT_NEEDS := jsonschema h11 'paho-mqtt<3' PyNaCl \
	pytest pytest-mock pytest-asyncio pytest-timeout hypothesis
define IMPORT_ALL
import importlib, pkgutil, rpcd_wireguard_uplink as ours
for found in pkgutil.walk_packages(ours.__path__, ours.__name__ + "."):
    found.name.endswith("__main__") or importlib.import_module(found.name)
endef
export IMPORT_ALL

.DEFAULT_GOAL := help
.PHONY: help run vm bench chaos fuzz test test-deep test-next ready lint format check generate screenshots
.PHONY: deb ipk install clean system lab-system venv-system

help: ## say what the commands are
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1: /'

run: lab-system $(LAB_STAMP) ## show a failover and a failback with real packets
	@$(BIN)/python -m tests.lab.demo

bench: system $(STAMP) ## measure every number of docs/benchmarks.md; RUNS=20, ONLY=peers, QUICK=1: in some minutes
	@$(BIN)/python -m tests.bench $(if $(QUICK),--quick) $(if $(RUNS),--runs=$(RUNS)) $(if $(ONLY),--only=$(ONLY))

vm: lab-system $(LAB_STAMP) ## play it on Debian's own kernel under qemu (20 minutes at most); SCENES="vrf offload"
	@$(BIN)/python -m tests.vm $(SCENES)

chaos: system $(STAMP) ## break the service on purpose and say what it survived; N=300 tries, SEED=
	@$(BIN)/python -m tests.chaos $(or $(N),300) $(SEED)

fuzz: $(STAMP) ## feed every parser with damaged input for SECONDS=60; SEED=
	@$(BIN)/python -m tests.fuzz $(or $(SECONDS),60) $(SEED)

test: system $(STAMP) ## run every case once, in short form; ARGS=... names tests instead
	@$(PYTEST) -o faulthandler_timeout=600 $(or $(ARGS),-m 'not deep')

test-deep: system $(STAMP) ## run all tests, long ones and relatives too
	@$(PYTEST) -o faulthandler_timeout=4000 $(ARGS)

test-next: ## try a newer Python, if there is one: import all, and test what depends on Python
	@next=; for candidate in $(NEXT); do \
		$$candidate -c '' 2>/dev/null && { next=$$candidate; break; }; \
	done; \
	[ -n "$$next" ] || { echo "no newer Python here: nothing was tried on one"; exit 0; }; \
	if [ ! .venv-next/.installed -nt setup.cfg ]; then \
		$$next -m venv --clear .venv-next && \
		.venv-next/bin/python -m pip install $(QUIETLY) $(NEXT_NEEDS) && \
		touch .venv-next/.installed || exit 1; \
	fi; \
	.venv-next/bin/python -W error -c "$$IMPORT_ALL" && \
	.venv-next/bin/python -m pytest $(NEXT_TESTS) -q -m 'not deep' -p no:cacheprovider \
		>.venv-next/tests.log 2>&1 \
		|| { cat .venv-next/tests.log; exit 1; }; \
	echo "all imports and $(NEXT_TESTS) pass on $$(.venv-next/bin/python -V)"

ready: system $(STAMP) ## install what tests need

lint: $(STAMP) ## format check, lint, types
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m ruff check
	$(BIN)/python -m mypy

format: $(STAMP) ## write the code in the project's format
	$(BIN)/python -m ruff format
	$(BIN)/python -m ruff check --fix

check: lint test ## lint and test: what must be good before a commit

generate: $(STAMP) ## write acl.d/, docs/methods.md, docs/messages.md and po/ from their sources
	$(BIN)/python -m docs.generate
	$(BIN)/python po/catalogue.py update

screenshots: system $(STAMP) ## write docs/screenshots, in a real LuCI's looks with LUCI_RESOURCES=DIR
	SCREENSHOTS=$(CURDIR)/docs/screenshots $(PYTEST) -q tests/browser
	@$(BIN)/python -m tests.lab.picture docs/screenshots/run.svg

deb: ## make dist/*.deb, the package for Debian
	@$(PYTHON) -m debian.build dist

ipk: $(LAB_STAMP) ## make dist/*.ipk, the packages for OpenWrt 24.10; BYTECODE=1: without sources
	@$(BIN)/python -c 'import rjsmin' 2>/dev/null || $(BIN)/python -m pip install $(QUIETLY) 'rjsmin>=1.2'
	@$(BIN)/python -m openwrt.ipk dist $(if $(BYTECODE),--bytecode)

install: ## lay the files out below DESTDIR as on a router
	@for folder in root:/ htdocs:/www acl.d:/usr/share/rpcd/acl.d; do \
		from=$${folder%%:*} to="$(DESTDIR)$${folder#*:}"; \
		[ -d "$$from" ] && [ -n "$$(ls -A "$$from")" ] || continue; \
		mkdir -p "$$to" && cp -R "$$from"/. "$$to"/ || exit 1; \
	done
	@[ -z "$(JSMIN)" ] || (cd htdocs && find . -name '*.js') | while read -r file; do \
		$(JSMIN) <"htdocs/$$file" >"$(DESTDIR)/www/$$file" || exit 1; \
	done
	@[ -z "$(JSMIN)" ] || sed -i -e '/^\/\*/d' -e 's/ *\([{};,]\) */\1/g' -e 's/: /:/g' \
		"$(DESTDIR)/www/luci-static/resources/wireguard-uplink/uplink.css"
	@$(PYTHON) po/catalogue.py compile "$(DESTDIR)/usr/lib/lua/luci/i18n"
	@mkdir -p "$(DESTDIR)$(PYTHON_SITE)"
	@find rpcd_wireguard_uplink \( -name '*.py' -o -name '*.sh' \) \
		-exec cp --parents -t "$(DESTDIR)$(PYTHON_SITE)" {} +
	@mkdir -p "$(DESTDIR)/usr/bin"
	@for script in wgctl:cli.main rpcd-wireguard-uplink:__main__; do \
		file="$(DESTDIR)/usr/bin/$${script%%:*}"; \
		printf '%s\n' '#!/usr/bin/python3' 'import sys' \
			"from rpcd_wireguard_uplink.$${script#*:} import main" 'sys.exit(main())' >"$$file" && \
		chmod 0755 "$$file" || exit 1; \
	done

clean: ## remove what the other commands made
	rm -rf $(VENV) .venv-next build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(LAB_STAMP): setup.cfg | venv-system
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; give another: make PYTHON=python3.11" >&2; exit 1; }
	@echo "Python: the project and its two libraries, into $(VENV) (up to a minute)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install $(QUIETLY) --editable .
	@touch $@

$(STAMP): $(LAB_STAMP)
	@echo "Python: what the tests need, into $(VENV)"
	@$(BIN)/python -m pip install $(QUIETLY) --editable '.[test]'
	@$(BIN)/python -m pytest -q --collect-only >/dev/null || true # else each worker compiles all of it
	@touch $@

# Installs what is missing, and starts nothing: of these packages only mosquitto has a service. It is
# kept from starting now by policy-rc.d (one that is there already decides), later by disabling it.
system: NEEDED = $(LAB) $(TESTS)
lab-system: NEEDED = $(LAB)
venv-system: NEEDED =
lab-system venv-system: UNLESS_INSTALLED = exit 1
system lab-system venv-system:
	@PATH="$$PATH:/usr/sbin:/sbin"; missing=; \
	for pair in $(NEEDED); do \
		command -v "$${pair%%:*}" >/dev/null || missing="$$missing $${pair#*:}"; \
	done; \
	$(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		missing="$$missing python3-venv"; \
	[ -n "$$missing" ] || exit 0; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "missing:$$missing (as root on Debian: apt-get install$$missing)" >&2; \
		$(or $(UNLESS_INSTALLED),exit 0); \
	fi; \
	echo "Debian:$$missing"; \
	policy=/usr/sbin/policy-rc.d; \
	if [ ! -e $$policy ]; then \
		trap "rm -f $$policy" EXIT; trap 'exit 1' INT TERM; \
		printf '#!/bin/sh\nexit 101\n' >$$policy && chmod 0755 $$policy || exit 1; \
	fi; \
	install="env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends"; \
	$$install $$missing >/dev/null 2>&1 || \
		{ apt-get update -qq && $$install $$missing >/dev/null; } || \
		echo "could not install$$missing; what needs them is skipped or fails by name" >&2; \
	case "$$missing" in *mosquitto*) \
		systemctl disable mosquitto >/dev/null 2>&1 || \
			update-rc.d mosquitto disable >/dev/null 2>&1 || true ;; \
	esac
