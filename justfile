# Every recipe is a cargo command; .ci/run calls the same ones.

# Format, clippy with warnings denied, documentation.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# All tests; the long ones and those that need root with `SRCOS_SLOW_TESTS=1 just test`.
test *ARGS:
    cargo test --workspace {{ARGS}}

# The main job, on this one machine.
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# One simulated world, from its seed.
sim SEED *ARGS:
    cargo run --release -p srcos-simnet -- run --seed {{SEED}} {{ARGS}}

# N simulated worlds, from seed 0 on.
sweep N *ARGS:
    cargo run --release -p srcos-simnet -- sweep --seeds 0..{{N}} {{ARGS}}

# Deliberate bugs, each found by a scenario or within 200 seeds; writes the table of docs/SIMULATION.md.
bite *ARGS:
    RUSTC_WORKSPACE_WRAPPER="$PWD/simnet/with-bugs" cargo build --release -p srcos-simnet
    mkdir -p target/bite && cp target/release/simnet target/bite/simnet
    target/bite/simnet bite --write docs/SIMULATION.md {{ARGS}}

# Fuzz one target (the list is in tests/fuzz/targets.rs); needs a nightly toolchain and cargo-fuzz.
fuzz TARGET *ARGS:
    cargo +nightly fuzz run --fuzz-dir tests/fuzz {{TARGET}} tests/fuzz/corpus/{{TARGET}} tests/fuzz/seeds/{{TARGET}} {{ARGS}}

# The figures in benches/README.md.
bench *ARGS:
    cargo run --release -p srcos-benches -- {{ARGS}}

# Licences, advisories, bans and sources; needs cargo-deny.
deny:
    cargo deny check
