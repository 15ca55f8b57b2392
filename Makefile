# The few commands people type. CI calls the same ones (.ci/run).
#
# The three binaries are built one by one on purpose: cargo unifies features within one invocation, and the worker
# must not get the compiler's Cranelift.

CARGO  ?= cargo
PROFILE ?= release
TARGET := $(or $(CARGO_TARGET_DIR),target)
BIN    := $(TARGET)/$(PROFILE)

.PHONY: build demo test check fixtures bench clean

build:
	$(CARGO) build --profile $(PROFILE) --locked -p cofferdam-worker
	$(CARGO) build --profile $(PROFILE) --locked -p cofferdam-compiler
	$(CARGO) build --profile $(PROFILE) --locked -p cofferdam

# `make demo` stays in the foreground until Ctrl-C; `make demo ARGS=--check` runs the tour by itself and exits.
demo: build
	$(BIN)/cofferdam demo $(ARGS)

# Unit tests of every crate, then the evidence: style, compile-fail, end to end and attacks with the real binaries.
# The evidence is built like the binaries, so that what both link is compiled once.
CRATES := model audit authz control sandbox jail gateway

test: build fixtures
	$(CARGO) test --locked $(CRATES:%=-p cofferdam-%) -p cofferdam
	$(CARGO) test --locked --release -p cofferdam-worker
	$(CARGO) test --locked --release -p cofferdam-compiler
	COFFERDAM_BIN_DIR=$(abspath $(BIN)) $(CARGO) test --locked --release -p cofferdam-tests

# What a reviewer would otherwise have to say.
check:
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked -p cofferdam-worker --all-targets -- -D warnings
	$(CARGO) clippy --locked -p cofferdam-compiler --all-targets -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --locked check bans licenses sources; \
	 else echo "cargo-deny is not installed: bans, licences and sources not checked here (cargo install cargo-deny --locked)"; fi

# Guests that need a toolchain of their own (JS from npm, Python from PyPI), built once per content into .fixtures/.
fixtures:
	examples/fixtures.sh

# Figures, never judged by a test: machines differ and are shared.
bench: build
	COFFERDAM_BENCH=1 $(CARGO) test --locked --release -p cofferdam-worker -- --nocapture slots_come_back
	COFFERDAM_BIN_DIR=$(abspath $(BIN)) $(CARGO) bench --locked -p cofferdam-tests --bench node -- $(ONLY)

clean:
	$(CARGO) clean
	rm -rf .fixtures .demo
