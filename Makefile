# snag: build, try, test. `make demo` and `make test` are all that a newcomer needs.

GO       ?= go
FUZZTIME ?= 30s
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X main.version=$(VERSION)

.PHONY: build demo test test-unit lint fuzz bench man clean

# Both programs are static: no cgo, no shared library.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/snag ./cmd/snag
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/snag-netmove ./cmd/snag-netmove

# Recovers a virtual BeagleBone on this machine. No board, no USB and no QEMU needed.
demo: build
	GO='$(GO)' sh scripts/demo.sh

# Everything that CI runs: vet, linters, unit and namespace tests, fuzz seeds, the VM.
test: build lint
	$(GO) run ./internal/lab/labtool vm
	$(GO) test -timeout 14m ./...

# What needs neither a VM nor packages.
test-unit:
	$(GO) test -short ./...

lint:
	$(GO) vet ./...
	$(GO) tool -modfile=tools/go.mod staticcheck ./...

# One fuzz target after the other, FUZZTIME each.
fuzz:
	GO='$(GO)' sh scripts/fuzz.sh $(FUZZTIME)

man: build
	bin/snag man --dir bin/man

clean:
	rm -rf bin
