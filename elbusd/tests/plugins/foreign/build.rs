//! The types of this crate shall look like those of the plugin API, which abi_stable tells by the package.

fn main() {
    println!("cargo:rustc-env=CARGO_PKG_NAME=elbus-plugin-api");
    println!("cargo:rerun-if-changed=build.rs");
}
