# SPDX-License-Identifier: LGPL-2.1-or-later
# `make` lists the targets. On a fresh Debian machine `make demo` and `make test` install what they need by themselves.

PREFIX ?= /usr/local
DESTDIR ?=
# The system's own interpreter: the virtual environment must see its pyudev and systemd modules.
PYTHON ?= /usr/bin/python3
VENV := build/venv
RUN := $(VENV)/bin/python

# Where modprobe and mke2fs are for users who are not root.
export PATH := $(PATH):/usr/sbin:/sbin

LIB := $(DESTDIR)$(PREFIX)/lib
SBIN := $(DESTDIR)$(PREFIX)/sbin
DOC := $(DESTDIR)$(PREFIX)/share/doc/flavourd

.DEFAULT_GOAL := help
.PHONY: help setup test unit lint format demo vm vm-test image install uninstall clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: setup ## boot a machine with emulated devices and show flavourd at work
	@$(RUN) -m tests.vm demo

test: setup ## everything: lint, types, spelling, unit tests, and the tests in the virtual machine
	$(RUN) -m pytest

unit: setup ## all but the virtual machine
	$(RUN) -m pytest -m "not vm"

lint: setup ## ruff, mypy, spelling, docs, units and rules
	$(RUN) -m pytest tests/test_linters.py

format: setup ## let ruff format the code
	$(RUN) -m ruff format . && $(RUN) -m ruff check --fix .

image: setup ## build the virtual machine's image and snapshots (cached)
	@$(RUN) -m tests.vm prepare

vm: setup ## a root shell in the virtual machine with flavourd installed
	@$(RUN) -m tests.vm shell

vm-test: setup ## run some tests in the virtual machine: make vm-test T=tests/vm/test_switch.py::test_name
	$(RUN) -m pytest -m vm $(if $(T),$(T),tests/vm)

setup: build/.setup

build/.setup: tests/setup.sh pyproject.toml
	@PYTHON=$(PYTHON) VENV=$(VENV) sh tests/setup.sh
	@touch $@

install: ## put flavourd in place: DESTDIR=, PREFIX=/usr/local or /usr
	install -d $(SBIN) $(LIB)/flavourd/python/flavourd/policy $(LIB)/udev/rules.d $(LIB)/systemd/system $(LIB)/systemd/catalog $(DOC) $(DESTDIR)/etc/flavourd
	install -m 644 flavourd/*.py $(LIB)/flavourd/python/flavourd
	install -m 644 flavourd/policy/*.py $(LIB)/flavourd/python/flavourd/policy
	$(if $(DESTDIR),,$(PYTHON) -m compileall -q $(LIB)/flavourd/python)
	sed 's,@PYTHONDIR@,$(PREFIX)/lib/flavourd/python,' systemd/flavourd.in > $(SBIN)/flavourd
	chmod 755 $(SBIN)/flavourd
	install -m 644 config/flavours.yaml $(LIB)/flavourd/flavours.yaml
	install -m 644 udev/90-flavourd.rules $(LIB)/udev/rules.d
	sed 's,/usr/sbin/,$(PREFIX)/sbin/,; s,/usr/share/,$(PREFIX)/share/,' systemd/flavourd.service > $(LIB)/systemd/system/flavourd.service
	install -m 644 systemd/flavourd.catalog $(LIB)/systemd/catalog
	install -m 644 README.md docs/errors.md $(DOC)
	$(if $(DESTDIR),,journalctl --update-catalog && udevadm control --reload && systemctl daemon-reload)

uninstall: ## take away what install has put in place
	rm -rf $(LIB)/flavourd $(DOC)
	rm -f $(SBIN)/flavourd $(LIB)/udev/rules.d/90-flavourd.rules $(LIB)/systemd/system/flavourd.service $(LIB)/systemd/catalog/flavourd.catalog

clean: ## remove build/ (the cached image stays in ~/.cache/flavourd)
	rm -rf build
