//! Empty, because Cargo requires a target besides the benchmark.
