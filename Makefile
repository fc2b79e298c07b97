# The tests and the demo work on the system's libvirt, which needs root: for
# other users the built programs, not cargo, run through sudo.

# Where rustup puts cargo, for shells that have not read its env file yet.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
# Guests boot slowly under emulation and wait a lot, so more tests run than there are CPUs.
export RUST_TEST_THREADS ?= 5
VERSIONS ?= bullseye trixie sid
export CPI_TEST_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/libvirt-bosh-cpi

# What tests choose their samples and bad inputs by: the commit, so that a red run can be repeated.
ifndef CPI_TEST_SEED
CPI_TEST_SEED := $(shell printf '%d' "0x0$$(git rev-parse HEAD 2>/dev/null | cut -c 1-7)")
endif
export CPI_TEST_SEED
export PROPTEST_RNG_SEED ?= $(CPI_TEST_SEED)

ifneq ($(shell id -u),0)
test_as_root := --config 'target."cfg(all())".runner=["$(CURDIR)/scripts/lib/as-root"]'
endif

.PHONY: help setup build release demo test test-host test-versions reliability fuzz bench coverage lint clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s  %s\n", $$1, $$2 }' Makefile

setup: ## Install packages, start libvirtd, build the test stemcell, fetch crates; quick when done
	@scripts/setup
	@cargo fetch --quiet --locked --target "$$(rustc -vV | sed -n 's/^host: //p')"

build: setup ## Build the release binary, target/release/cpi
	@cargo build --release --locked

release: setup ## Build what the BOSH package is made of, src/cpi_bundle; `bosh create-release` comes next
	@scripts/release

demo: build ## Create, use and delete a VM with the CPI on this machine's libvirt
	@scripts/demo

test: setup ## Run all tests, including those on this machine's libvirt
	@scripts/setup ceph
	@scripts/bare-root
	@scripts/client-library >/dev/null
	@echo "test: CPI_TEST_SEED=$(CPI_TEST_SEED) chooses the samples"
	@cargo $(test_as_root) test --locked

test-host: setup ## Boot a Debian 12 and a Debian 13, install them as docs/INSTALL.md says, and run the CPI against them
	@scripts/client-library >/dev/null
	@cargo $(test_as_root) test --locked --test host -- --nocapture --test-threads 1 $(HOSTS)

test-versions: setup ## Run the contract once on the libvirt of Debian 11, 13 and sid, in root directories made once (VERSIONS: others)
	@scripts/other-libvirt $(VERSIONS)
	@CPI_TEST_VERSIONS=own,$$(echo $(VERSIONS) | tr ' ' ',') cargo $(test_as_root) test --locked --test libvirt -- --nocapture versions::

reliability: setup ## Fault injection at every call to libvirt, boots of all formats, stress and soak tests: hours
	@CPI_TEST_FAULTS=all cargo $(test_as_root) test --locked --test libvirt -- faults disk_races::
	@CPI_TEST_BOOTS=all cargo $(test_as_root) test --locked --test libvirt -- every_format_boots
	@CPI_TEST_LOAD_VMS=50 CPI_TEST_LOAD_WORKERS=10 CPI_TEST_FOREIGN=all CPI_TEST_SOAK_ROUNDS=500 cargo $(test_as_root) \
		test --locked --test libvirt -- --nocapture --test-threads 1 load:: load_foreign:: soak::

fuzz: setup ## Fuzz each reader with a million inputs (FUZZ_RUNS: another number)
	@scripts/setup fuzz
	@scripts/fuzz

bench: build ## Measure the CPI beside the same work done by virsh
	@scripts/setup bench
	@scripts/bench

coverage: setup ## Run all tests on an instrumented build; list untested code that decides about data
	@scripts/setup ceph coverage
	@scripts/bare-root
	@scripts/client-library >/dev/null
	@scripts/coverage

lint: setup ## Check formatting and documents; clippy with warnings as errors
	@scripts/setup lint
	@cargo fmt --all --check
	@scripts/lint-docs
	@cargo clippy --all-targets --locked -- -D warnings

clean: ## Remove what cargo built (the test stemcell's cache stays)
	@cargo clean
