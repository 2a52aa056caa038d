//! What measures ELBUS from outside: a load generator, a byte relay as the physical limit, and a comparison of brokers
//! that runs both. It judges no broker and knows none but by its address and process id.
#![forbid(unsafe_code)]

pub mod compare;
mod driver;
pub mod guard;
mod histogram;
pub mod load;
mod names;
mod process;
pub mod relay;
pub mod soak;

/// What went wrong, as a sentence.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Ends a program: what went wrong is said in one line.
pub fn end(program: &str, result: Result<std::process::ExitCode, Failure>) -> std::process::ExitCode {
    result.unwrap_or_else(|failure| {
        eprintln!("{program}: {failure}");
        std::process::ExitCode::FAILURE
    })
}
