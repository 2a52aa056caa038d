//! Gives the types of this crate the package name of the plugin API, by which abi_stable identifies them.

fn main() {
    println!("cargo:rustc-env=CARGO_PKG_NAME=elbus-plugin-api");
    println!("cargo:rerun-if-changed=build.rs");
}
