# Every target installs what it needs beyond the Rust, Node, Python and Go toolchains.
.PHONY: up test dist micro release bench interop fmt lint web tools proof toolchain

LEGWORK := target/release/legwork

## up: build and start a hub with a local runner, and print what to type next
up: $(LEGWORK)
	$(LEGWORK) up

$(LEGWORK): toolchain web micro
	cargo build --release --locked -p legwork

## test: everything CI runs
test: toolchain tools web micro
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo deny --log-level error check bans licenses sources
	scripts/check-borders
	cd web && npm run --silent check
	cargo build --locked -p legwork
	nice -n 15 scripts/fuzz-smoke & fuzz=$$!; \
		scripts/web-test && API_ROLES="viewer admin" API_SECONDS=4 API_EXAMPLES=3 scripts/api-test && scripts/prove && scripts/walls-test && scripts/gate-test; \
		status=$$?; wait $$fuzz && exit $$status
	cargo test --quiet --locked --doc -p legwork-remote
	cargo nextest run --locked --workspace --no-fail-fast -E 'not binary(walls) and not binary(gate)'

## dist: release binaries
dist: $(LEGWORK)
	install -D $(LEGWORK) dist/legwork

## micro: the micro-runners that `legwork ssh` sends to hosts
micro: toolchain
	scripts/micro

## release: an archive per target with checksums, signed with the key that RELEASE_KEY names
release: toolchain web micro
	scripts/release

## bench: the figures of docs/performance.md, as ratios against their peers
bench: $(LEGWORK)
	cargo build --release --locked -p legwork-e2e
	cargo run --release --locked -p legwork-bench -- all

## interop: real MCP servers from npm and PyPI; originals, their paths in FLASHDUTY_RUNNER_BIN,
## OPENFROYO_MICRO_RUNNER, OPENFROYO_CLIENT and PLUE_RUNNER
interop: $(LEGWORK)
	scripts/interop-mcp
	scripts/interop-mcp-clients
	scripts/interop
	scripts/interop-micro
	scripts/interop-task
	scripts/interop-sdk

## proof: the page's figures, its proxies, other browsers and applications; what `make test` shows of a part, of the whole: the presets with kubectl, SQL with real databases, requests made from
## the OpenAPI document with a token of each role (API_SECONDS), every control, every line, as many more as PROVE_LINES says, with bash 5.1 and 5.3 as well (BASH_51 and BASH_53, or what
## scripts/other-bash gets), hours of fuzzing (FUZZ_POLICY_SECONDS), and 10,000 worlds of the hub's simulation (SIM_SEEDS)
proof: toolchain tools $(LEGWORK)
	LEGWORK_BIN=$(CURDIR)/$(LEGWORK) scripts/page-proof
	scripts/kubectl
	cargo nextest run --locked -p legwork-e2e -E 'test(kubernetes::)'
	scripts/databases
	scripts/managers-test
	scripts/api-test
	others=$$(scripts/other-bash); env $$others PROVE_SHARE=1 PROVE_SLICE=1 PROVE_LINES=$${PROVE_LINES:-100000} PROVE_QUOTES=$${PROVE_QUOTES:-1000000} scripts/prove
	FUZZ_SECONDS=$${FUZZ_SECONDS:-300} FUZZ_POLICY_SECONDS=$${FUZZ_POLICY_SECONDS:-7200} \
		FUZZ_SHELLS_SECONDS=$${FUZZ_SHELLS_SECONDS:-3600} FUZZ_SHELLS_SEED=$${FUZZ_SHELLS_SEED:-$$$$} FUZZ_SEED=$${FUZZ_SEED:-$$$$} scripts/fuzz-smoke
	SIM_SEEDS=$${SIM_SEEDS:-10000} cargo test --locked -p legwork-hub --lib nothing_is_lost -- --nocapture

## fmt: format everything
fmt: toolchain web/node_modules
	cargo fmt --all
	cd web && npm run --silent format

## lint: clippy with warnings denied
lint: toolchain web micro
	cargo clippy --locked --workspace --all-targets -- -D warnings

## web: the pages that the program embeds
web: web/dist/index.html

web/dist/index.html: web/node_modules $(shell find web/src web/public -type f) web/index.html web/workspace.html web/vite.config.ts
	cd web && npm run --silent build
	@touch $@

web/node_modules: web/package.json web/package-lock.json
	cd web && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

## toolchain: what rust-toolchain.toml names, where rustup does not add it by itself
toolchain:
	scripts/toolchain

## tools: what the tests need beyond the toolchains
tools: toolchain web/node_modules
	scripts/tools
