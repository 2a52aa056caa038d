//! Hands the target and the compiler's version, known to build scripts only, to the plugin record.

fn main() {
    let target = std::env::var("TARGET").unwrap_or_else(|_| "unknown".into());
    let version = std::env::var_os("RUSTC")
        .and_then(|rustc| std::process::Command::new(rustc).arg("-V").output().ok())
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=ELBUS_TARGET={target}");
    println!("cargo:rustc-env=ELBUS_RUSTC={version}");
    println!("cargo:rerun-if-changed=build.rs");
}
