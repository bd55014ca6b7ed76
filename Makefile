# Two commands: `make demo` runs the main job, `make test` everything else. `make help` lists the rest.
# Each installs what is missing (setup.sh) and takes ARGS, for example `make demo ARGS=--once`.

SHELL    := /bin/bash
TARGET   := $(abspath $(or $(CARGO_TARGET_DIR),target))
TRIPLE   := $(shell uname -m)-unknown-linux-gnu
AGENT    := $(TARGET)/$(TRIPLE)/agent/kiln-agent
AGENT_ARM64 := $(TARGET)/aarch64-unknown-linux-gnu/agent/kiln-agent
# Static, and the same bytes from whatever folder it is built in.
AGENT_FLAGS := -Ctarget-feature=+crt-static --cfg getrandom_backend="linux_getrandom" \
	--remap-path-prefix=$(CURDIR)=/kiln --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo
# For what makes network namespaces and taps.
AS_ROOT  := $(if $(filter 0,$(shell id -u)),,sudo -E env "PATH=$$PATH")

.PHONY: help demo test test-long bench fuzz agent agent-arm64 kiln fmt clean setup-demo setup-test setup-bench setup-arm64

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo: setup-demo kiln agent ## bake, sign, serve, boot two machines, roll, refuse; leaves the lab running
	$(AS_ROOT) $(TARGET)/debug/kiln-demo --kiln $(TARGET)/debug/kiln --agent $(AGENT) $(ARGS)

# The profile that `make test` runs: its dependencies are optimised, and it builds in a third of the time.
kiln:
	cargo build --locked --bin kiln --bin kiln-demo

# Process 1 of every machine.
agent: ## build the static agent alone
	RUSTFLAGS='$(AGENT_FLAGS)' \
		cargo build --locked --profile agent --target $(TRIPLE) --target-dir $(TARGET) -p kiln-agent

# Debian's compiler and its library for arm64 (setup.sh); a folder of its own, for rustup's compiler is another.
agent-arm64: setup-arm64 ## the agent for arm64, on an x86_64 machine
	RUSTC=$(TARGET)/cross-arm64/rustc RUSTFLAGS='$(AGENT_FLAGS)' \
		CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
		cargo build --locked --profile agent --target aarch64-unknown-linux-gnu \
			--target-dir $(TARGET)/cross-arm64/target -p kiln-agent
	install -D $(TARGET)/cross-arm64/target/aarch64-unknown-linux-gnu/agent/kiln-agent $(AGENT_ARM64)

test: setup-test ## formatting, lints, unit, property, contract and peer tests, and the lab
	./tests/run.sh

# Where the tools for arm64 cannot be had, its scenarios are skipped with that reason; no older agent stands in.
test-long: setup-test agent kiln ## every way of booting, firmware to a healthy agent
	if $(MAKE) --no-print-directory setup-arm64; then $(MAKE) --no-print-directory agent-arm64; \
		else rm -f $(AGENT_ARM64); fi
	$(AS_ROOT) $(TARGET)/debug/kiln-demo --kiln $(TARGET)/debug/kiln --dir $(TARGET)/test-long --agent $(AGENT) \
		--agent-arm64 $(AGENT_ARM64) scenario $(or $(SCENARIO),all)

setup-demo:
	@./setup.sh demo

setup-test:
	@./setup.sh test

setup-bench:
	@TARGET=$(TARGET) ./setup.sh bench

setup-arm64:
	@TARGET=$(TARGET) ./setup.sh arm64

bench: setup-bench agent ## our servers, our builder and the peers in one run: a table, and target/bench.json
	cargo build --release --locked --bin kiln --bin kiln-bench
	cargo build --release --locked -p tftp-server --example serve
	$(AS_ROOT) $(TARGET)/release/kiln-bench --kiln $(TARGET)/release/kiln --agent $(AGENT) --tftp $(TARGET)/release/examples/serve \
		--tftpd-hpa $(TARGET)/bench/tftpd-hpa/usr/sbin/in.tftpd --out $(TARGET)/bench.json $(ARGS)

fuzz: setup-test ## fuzz every reader for MINUTES (10) of processor time each, JOBS at a time; TARGETS="deb tuf" for some
	nice -n 19 ./tests/fuzz/run.sh

fmt: ## format everything
	cargo fmt --all

clean: ## end a lab that still runs, and remove what was built
	-[ -x $(TARGET)/debug/kiln ] && $(AS_ROOT) $(TARGET)/debug/kiln -C demo lab down
	cargo clean
