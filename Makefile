# snag: build, try, test. `make demo` and `make test` are all that a newcomer needs.

GO       ?= go
FUZZTIME ?= 30s
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X main.version=$(VERSION)

# All is built in one way, programs, tests and what the linters look at: everything below is compiled once, not three times.
export CGO_ENABLED = 0
export GOFLAGS    += -trimpath

.PHONY: build cross others libusb test-libusb demo test test-vm packages test-unit lint fuzz bench man install clean

PREFIX  ?= /usr/local
DESTDIR ?=

# Both programs are static: no cgo, no shared library.
build:
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/snag ./cmd/snag
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/snag-netmove ./cmd/snag-netmove
	@for p in bin/snag bin/snag-netmove; do if ldd $$p >/dev/null 2>&1; then echo "$$p is not static"; exit 1; fi; done

# The other machines that snag is for must not be forgotten; "build" is for this one. Nothing of it is run: the compiler
# need not optimise, which is a third of its work.
MACHINES = amd64 arm64 arm riscv64
cross:
	@for arch in $(MACHINES); do \
		[ $$arch != $$($(GO) env GOHOSTARCH) ] || continue; \
		echo "GOARCH=$$arch $(GO) build"; \
		GOOS=linux GOARCH=$$arch $(GO) build -gcflags='all=-N -l' -o /dev/null ./cmd/snag ./cmd/snag-netmove || exit 1; \
	done

# What snag-libusb is made of, as far as it needs no C compiler, on other systems. Not part of "make test": it builds the
# standard library twice.
others:
	@for system in darwin windows; do \
		echo "GOOS=$$system $(GO) build"; \
		GOOS=$$system $(GO) build ./usb ./recovery ./netsetup ./internal/config ./internal/ui || exit 1; \
		GOOS=$$system $(GO) vet ./usb/rndis ./usb/usbnet ./netboot/ethernet || exit 1; \
	done

# The same on libusb, bin/snag-libusb, a module of its own (docs/libusb.md). "make test" builds and vets it with what it fetches
# itself; "make test-libusb" runs its tests too, in a VM, for three minutes.
GOUSB := /usr/share/gocode/src/github.com/google/gousb

libusb:
	@test -d $(GOUSB) && pkg-config --exists libusb-1.0 || { echo "make libusb: apt install gcc pkg-config libusb-1.0-0-dev golang-github-google-gousb-dev" >&2; exit 1; }
	cd usb/libusb && CGO_ENABLED=1 $(GO) vet ./...
	cd usb/libusb && CGO_ENABLED=1 $(GO) build -o ../../bin/snag-libusb ./cmd/snag-libusb

test-libusb:
	SNAG_LIBUSB=1 $(GO) test -count=1 -v ./internal/e2e/libusb

# Recovers a virtual BeagleBone on this machine. No board, no USB and no QEMU needed.
demo: build
	GO='$(GO)' sh scripts/demo.sh

# The packages whose tests run in VMs, which queue for the processors.
VMTESTS = ./internal/e2e/... ./internal/lab ./usb/usbfs
UNITTESTS = $(shell $(GO) list ./... | grep -vE '/(internal/e2e(/.*)?|internal/lab|usb/usbfs)$$')

# Everything that CI runs: vet, linters, unit and namespace tests, fuzz seeds, the VMs. The VMs have the processors to
# themselves: beside a compiler, at whatever priority, their boards and peers, with time limits of their own, do not come
# to work. Of the other machines one of 32 bits and one of 64 are built for. No cached results: the end-to-end tests build
# programs that the go command does not know they depend on.
test: build
	$(MAKE) -j 2 packages cross lint MACHINES='arm riscv64'
	$(GO) test -count=1 -p 4 -timeout 25m $(VMTESTS)
	$(GO) test -count=1 -p 4 -timeout 10m $(UNITTESTS)

# All boards and cases in the VMs, of which "make test" does a part that has each of their kinds: half an hour.
test-vm: build packages
	SNAG_EVERY=1 $(GO) test -count=1 -timeout 60m ./internal/e2e

# What the VMs are made of, fetched while others compile.
packages:
	$(GO) run ./internal/lab/labtool vm

# What needs neither a VM nor packages.
test-unit:
	$(GO) test -short ./...

lint:
	$(GO) vet ./...
	$(GO) tool -modfile=tools/go.mod staticcheck ./...

# One fuzz target after the other, FUZZTIME each.
fuzz:
	GO='$(GO)' sh scripts/fuzz.sh $(FUZZTIME)

# Throughput of the TFTP server beside other servers (as root), then board-side times, beside Snagboot's where SNAGBOOT
# names its sources (docs/bench.md); then images beside bmaptool, zstd and img2simg (13 GiB sparse, some 8 GiB of room).
bench:
	@if [ "$$(id -u)" = 0 ]; then $(GO) run ./netboot/bench; else echo "TFTP throughput: left out, its network namespaces need root"; fi
	@echo
	@$(GO) run ./internal/e2e/bench
	@echo
	@SNAG_BENCH=$${TMPDIR:-/tmp} $(GO) test -count=1 -timeout 30m -run TestSpeed ./flash/block

# Manual pages, and what has the shells complete snag's words.
man: build
	bin/snag man --dir bin/man
	@mkdir -p bin/completion
	for shell in bash zsh fish; do bin/snag completion $$shell >bin/completion/$$shell || exit 1; done

# Installs what was built (run "make build man" first, as yourself). The helper gets its capability from
# "snag setup".
install:
	install -D -m 0755 bin/snag $(DESTDIR)$(PREFIX)/bin/snag
	install -D -m 0755 bin/snag-netmove $(DESTDIR)$(PREFIX)/libexec/snag/snag-netmove
	if [ -d bin/completion ]; then \
		install -D -m 0644 bin/completion/bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/snag && \
		install -D -m 0644 bin/completion/zsh $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_snag && \
		install -D -m 0644 bin/completion/fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/snag.fish; fi
	if [ -d bin/man ]; then install -d $(DESTDIR)$(PREFIX)/share/man/man1 && install -m 0644 bin/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1; fi

clean:
	rm -rf bin
