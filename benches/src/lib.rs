//! Measures ELBUS from outside: a load generator, a byte relay as the upper limit, a comparison of brokers, a
//! soak test and a count of instructions. The load generator and the comparison know a broker only by its
//! address and process id.
#![forbid(unsafe_code)]

pub mod compare;
mod driver;
pub mod features;
pub mod guard;
pub mod load;
mod names;
mod process;
pub mod relay;
pub mod soak;

/// An error, as a sentence for the user.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Returns the exit code of a program; an error is printed as one line on stderr.
pub fn exit_code(program: &str, result: Result<std::process::ExitCode, BoxError>) -> std::process::ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("{program}: {error}");
        std::process::ExitCode::FAILURE
    })
}
