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
SITE := $(LIB)/flavourd/python
BIN := $(DESTDIR)$(PREFIX)/bin
SBIN := $(DESTDIR)$(PREFIX)/sbin
DOC := $(DESTDIR)$(PREFIX)/share/doc/flavourd
MAN := $(DESTDIR)$(PREFIX)/share/man
# initramfs-tools and dracut do not look below /usr/local: there the admin's own folder serves, and dracut has none.
INITRAMFS_TOOLS := $(DESTDIR)$(if $(filter /usr/local,$(PREFIX)),/etc,$(PREFIX)/share)/initramfs-tools
DRACUT := $(DESTDIR)$(if $(filter /usr/local,$(PREFIX)),/usr,$(PREFIX))/lib/dracut/modules.d/90flavourd
# Where the shells look. Debian's zsh: vendor-completions below /usr, site-functions below /usr/local, and neither the other way round;
# fish: below /usr/local only if XDG_DATA_DIRS names it.
BASH_COMPLETIONS := $(DESTDIR)$(PREFIX)/share/bash-completion/completions
ZSH_COMPLETIONS := $(DESTDIR)$(PREFIX)/share/zsh/$(if $(filter /usr,$(PREFIX)),vendor-completions,site-functions)
FISH_COMPLETIONS := $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d

.DEFAULT_GOAL := help
.PHONY: help setup test unit lint format demo vm vm-test image bench bench-quick install uninstall install-module uninstall-module clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-16s %s\n", $$1, $$2}'

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

bench: setup build/.bench ## measure all, hours under emulation, and write benchmarks/RESULTS.md: make bench F="switch lists"
	@$(RUN) -m benchmarks run $(F)

bench-quick: setup ## a few rounds of what is cheap to measure; prints the tables and writes nothing
	@$(RUN) -m benchmarks run --quick $(F)

setup: build/.setup

build/.setup: tests/setup.sh pyproject.toml
	@PYTHON=$(PYTHON) VENV=$(VENV) sh tests/setup.sh
	@touch $@

build/.bench: build/.setup
	@$(RUN) -m pip install --quiet --disable-pip-version-check --group bench
	@touch $@

# What the build itself needs, apart from the tests' environment: an installing host has no use for that.
TOOLS := build/tools/.made
PIP := build/tools/bin/python -m pip --quiet --disable-pip-version-check
$(TOOLS): packaging/tools.txt
	@$(PYTHON) -m venv $(@D)
	@$(PIP) install --no-deps --require-hashes -r $<
	@touch $@

# Libraries that Debian lacks, for flavourd's own directory.
build/bundled: packaging/bundled.txt | $(TOOLS)
	@rm -rf $@
	@$(PIP) install --no-deps --no-compile --require-hashes --target $@ -r $<
	@touch $@

# The command line itself says what can be completed and what its manual tells.
CLI := flavourd/__init__.py $(wildcard flavourd/cli/*.py)
build/completions: packaging/completions.py $(wildcard packaging/completion.*) $(TOOLS) $(CLI)
	@rm -rf $@
	@PYTHONPATH=. build/tools/bin/python -B $< $@

build/flavourctl.1: packaging/manpage.py man/flavourctl.1.in $(CLI)
	@mkdir -p $(@D)
	@PYTHONPATH=. $(PYTHON) -B $< man/flavourctl.1.in $@

install: build/bundled build/completions build/flavourctl.1 ## put flavourd in place: DESTDIR=, PREFIX=/usr/local or /usr
	install -d $(BIN) $(SBIN) $(LIB)/udev/rules.d $(LIB)/systemd/system $(LIB)/systemd/catalog $(LIB)/sysusers.d $(DESTDIR)/etc/flavourd
	install -d $(DOC)/policy.d $(MAN)/man1 $(MAN)/man5 $(MAN)/man8 $(BASH_COMPLETIONS) $(ZSH_COMPLETIONS) $(FISH_COMPLETIONS)
	set -e; for folder in . usage policy keeper ipc cli attributes; do install -d $(SITE)/flavourd/$$folder; install -m 644 flavourd/$$folder/*.py $(SITE)/flavourd/$$folder; done
	install -m 644 flavourd/ipc/*.varlink $(SITE)/flavourd/ipc
	install -m 644 docs/errors.md $(SITE)/flavourd
	cp -r build/bundled/asyncvarlink $(SITE)
	$(if $(DESTDIR),,$(PYTHON) -m compileall -q $(SITE))
	sed 's,@PYTHONDIR@,$(PREFIX)/lib/flavourd/python,' systemd/flavourd.in > $(SBIN)/flavourd
	sed 's,@PYTHONDIR@,$(PREFIX)/lib/flavourd/python,' systemd/flavourctl.in > $(BIN)/flavourctl
	sed 's,@PYTHONDIR@,$(PREFIX)/lib/flavourd/python,; s,flavourd.__main__,flavourd.usage.processes,' systemd/flavourd.in > $(LIB)/flavourd/flavourd-processes
	sed 's,@PYTHONDIR@,$(PREFIX)/lib/flavourd/python,; s,flavourd.__main__,flavourd.early,' systemd/flavourd.in > $(LIB)/flavourd/flavourd-early
	sed 's,@PYTHONDIR@,$(PREFIX)/lib/flavourd/python,; s,flavourd.__main__,flavourd.attributes.__main__,' systemd/flavourd.in > $(LIB)/flavourd/flavourd-attributes
	chmod 755 $(SBIN)/flavourd $(BIN)/flavourctl $(addprefix $(LIB)/flavourd/flavourd-,processes early attributes)
	install systemd/flavourd-settle systemd/flavourd-unpark udev/pci-serial initramfs/flavourd-park initramfs/flavourd-leave $(LIB)/flavourd
	install -m 644 config/flavours.yaml $(LIB)/flavourd/flavours.yaml
	sed 's,/usr/lib/flavourd/,$(PREFIX)/lib/flavourd/,' udev/90-flavourd.rules > $(LIB)/udev/rules.d/90-flavourd.rules
	set -e; for unit in flavourd flavourd-processes flavourd-early flavourd-unpark flavourd-attributes; do \
		sed -E 's,^(Exec\w+=-?)/usr/(sbin/flavourd|bin/flavourctl|lib/flavourd/),\1$(PREFIX)/\2,' systemd/$$unit.service > $(LIB)/systemd/system/$$unit.service; done
	install -m 644 systemd/flavourd.socket systemd/flavourd-processes.socket $(LIB)/systemd/system
	install -m 644 systemd/flavourd.catalog $(LIB)/systemd/catalog
	install -m 644 systemd/flavourd.sysusers $(LIB)/sysusers.d/flavourd.conf
	set -e; install -d $(INITRAMFS_TOOLS)/hooks $(INITRAMFS_TOOLS)/scripts/init-top $(INITRAMFS_TOOLS)/scripts/init-bottom $(DRACUT); \
		inside() { sed 's,lib=/usr/lib/flavourd$$,lib=$(PREFIX)/lib/flavourd,' initramfs/$$1 > $$2; chmod 755 $$2; }; \
		inside flavourd-initramfs $(LIB)/flavourd/flavourd-initramfs; \
		inside hook $(INITRAMFS_TOOLS)/hooks/flavourd; inside dracut/module-setup.sh $(DRACUT)/module-setup.sh
	install initramfs/init-top $(INITRAMFS_TOOLS)/scripts/init-top/flavourd
	install initramfs/init-bottom $(INITRAMFS_TOOLS)/scripts/init-bottom/flavourd
	install initramfs/dracut/flavourd-park.sh initramfs/dracut/flavourd-leave.sh $(DRACUT)
	install -m 644 README.md docs/errors.md config/flavourd.yaml config/policy.schema.json $(DOC)
	install -m 644 config/policy.d/* $(DOC)/policy.d
	install -m 644 build/flavourctl.1 $(MAN)/man1
	install -m 644 man/flavourd.policy.5 $(MAN)/man5
	install -m 644 man/flavourd.8 $(MAN)/man8
	install -m 644 build/completions/flavourctl $(BASH_COMPLETIONS)
	install -m 644 build/completions/_flavourctl $(ZSH_COMPLETIONS)
	install -m 644 build/completions/flavourctl.fish $(FISH_COMPLETIONS)
	$(if $(DESTDIR),,systemd-sysusers flavourd.conf && journalctl --update-catalog && udevadm control --reload && systemctl daemon-reload)

uninstall: ## take away what install has put in place
	$(if $(DESTDIR),,-systemctl disable --now flavourd.socket flavourd.service flavourd-processes.socket)
	rm -rf $(SITE) $(DOC)
	rm -f $(addprefix $(LIB)/flavourd/,flavourd-processes flavourd-early flavourd-attributes flavourd-settle flavourd-unpark flavourd-park flavourd-leave flavourd-initramfs pci-serial flavours.yaml)
	rmdir --ignore-fail-on-non-empty $(LIB)/flavourd
	rm -f $(BIN)/flavourctl $(SBIN)/flavourd $(LIB)/udev/rules.d/90-flavourd.rules $(LIB)/systemd/catalog/flavourd.catalog
	rm -f $(LIB)/systemd/system/flavourd.service $(LIB)/systemd/system/flavourd.socket $(LIB)/sysusers.d/flavourd.conf
	rm -f $(foreach unit,processes early unpark attributes,$(LIB)/systemd/system/flavourd-$(unit).*)
	rm -rf $(DRACUT)
	rm -f $(INITRAMFS_TOOLS)/hooks/flavourd $(INITRAMFS_TOOLS)/scripts/init-top/flavourd $(INITRAMFS_TOOLS)/scripts/init-bottom/flavourd
	rm -f $(MAN)/man1/flavourctl.1 $(MAN)/man5/flavourd.policy.5 $(MAN)/man8/flavourd.8
	rm -f $(BASH_COMPLETIONS)/flavourctl $(ZSH_COMPLETIONS)/_flavourctl $(FISH_COMPLETIONS)/flavourctl.fish
	$(if $(DESTDIR),,-udevadm control --reload; systemctl daemon-reload)

# dkms looks there alone.
MODULE := driver-flavour/$(shell sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' kernel/dkms.conf)
MODULE_SOURCE := $(DESTDIR)/usr/src/$(subst /,-,$(MODULE))
install-module: ## build the kernel module through dkms, now and for each new kernel, and load it: DESTDIR=, PREFIX=
	$(if $(DESTDIR),,-dkms remove $(MODULE) --all 2> /dev/null)
	install -d $(MODULE_SOURCE) $(LIB)/modules-load.d
	install -m 644 kernel/driver_flavour.c kernel/Kbuild kernel/Makefile kernel/dkms.conf $(MODULE_SOURCE)
	$(if $(DESTDIR),,dkms install $(MODULE))
	echo driver_flavour > $(LIB)/modules-load.d/driver_flavour.conf
	$(if $(DESTDIR),,modprobe driver_flavour)

uninstall-module: ## take away what install-module has put in place
	$(if $(DESTDIR),,-modprobe -r driver_flavour; dkms remove $(MODULE) --all)
	rm -f $(LIB)/modules-load.d/driver_flavour.conf
	rm -rf $(MODULE_SOURCE)

clean: ## remove build/ (the cached image stays in ~/.cache/flavourd)
	rm -rf build
