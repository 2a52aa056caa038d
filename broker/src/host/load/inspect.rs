//! Reads the manifest of a plugin library from its bytes, without loading the library or running its code.
//!
//! Refuses files that would crash the dynamic loader, mainly truncated ones: mapping such a file ends the
//! process with SIGBUS.

use elbus_plugin_api::manifest::{API, MANIFEST_VERSION, OWNER, TARGET, value};
use object::{
    Endianness,
    elf::{DF_1_PIE, DT_FLAGS_1, ET_DYN, FileHeader64, PT_INTERP},
    read::elf::{Dyn, FileHeader, ProgramHeader},
};

/// The manifest of a plugin library.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PluginManifest {
    /// The name of its crate.
    pub name: String,
    /// The version of its crate.
    pub version: String,
    /// The version of the plugin API it was built for.
    pub api: String,
    /// The target it was built for.
    pub target: String,
    /// The symbol it exports.
    pub entry: String,
    /// Its panic strategy.
    pub panic: String,
    /// The compiler it was built with.
    pub rustc: String,
    /// A one-line description.
    pub about: String,
    /// The plugins that it requires, separated by spaces.
    pub requires: String,
    /// The build id that the linker has written, in hexadecimal; empty if there is none.
    pub build_id: String,
}

/// The type of the ELF note with the build id, whose owner is `GNU`.
const NT_GNU_BUILD_ID: u32 = 3;
/// Number of bytes of it that are shown: the length of a SHA-1.
const SHOWN_BUILD_ID_BYTES: usize = 20;

#[cfg(target_arch = "x86_64")]
const MACHINE: Option<u16> = Some(62);
#[cfg(target_arch = "aarch64")]
const MACHINE: Option<u16> = Some(183);
#[cfg(target_arch = "riscv64")]
const MACHINE: Option<u16> = Some(243);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
const MACHINE: Option<u16> = None;

/// Returns the manifest of the plugin library with these bytes, after the checks that a broker makes before
/// loading it. Runs no code of the library; the bytes can be arbitrary.
///
/// # Errors
/// Why this broker would not load the library: it was not built for this machine, is damaged, has no manifest
/// or several, was built for another API version, or its panics would end the broker.
pub fn inspect(data: &[u8]) -> Result<PluginManifest, String> {
    let manifest = read(data)?;
    check(&manifest)?;
    Ok(manifest)
}

/// Reads the manifest of the library with these bytes.
fn read(data: &[u8]) -> Result<PluginManifest, String> {
    if !data.starts_with(b"\x7fELF") {
        return Err(match data.len() {
            0 => "the file is empty".to_owned(),
            _ => "not a library (no ELF file)".to_owned(),
        });
    }
    let bytes = data.len() as u64;
    let damaged = || format!("damaged or cut off (its headers point past its end, {bytes} bytes)");
    let elf = FileHeader64::<Endianness>::parse(data)
        .map_err(|_| "not a 64-bit ELF library, or cut off".to_owned())?;
    let endian = elf.endian().map_err(|_| damaged())?;
    let machine = elf.e_machine(endian).0;
    if MACHINE.is_some_and(|ours| ours != machine) || endian != native_endianness() {
        return Err(format!("built for another processor (ELF machine {machine}, this broker {TARGET})"));
    }
    if elf.e_type(endian) != ET_DYN {
        return Err("not a shared library (a program or an object file)".to_owned());
    }
    let inside = |offset: u64, size: u64| offset.checked_add(size).is_some_and(|end| end <= bytes);
    let sections = u64::from(elf.e_shnum(endian)) * u64::from(elf.e_shentsize(endian));
    if !inside(elf.e_shoff(endian), sections) {
        return Err(damaged());
    }
    let mut manifests = Vec::new();
    let mut build_id = String::new();
    let (mut program, mut dynamic) = (false, false);
    for segment in elf.program_headers(endian, data).map_err(|_| damaged())? {
        let (in_file, in_memory) = (segment.p_filesz(endian), segment.p_memsz(endian));
        if !inside(segment.p_offset(endian), in_file) || in_file > in_memory {
            return Err(damaged());
        }
        program |= segment.p_type(endian) == PT_INTERP;
        if let Some(entries) = segment.dynamic(endian, data).map_err(|_| damaged())? {
            dynamic = true;
            let pie = |entry: &_| is_pie(entry, endian);
            if entries.iter().any(pie) {
                return Err("a program, not a library".to_owned());
            }
        }
        if let Some(mut notes) = segment.notes(endian, data).map_err(|_| damaged())? {
            while let Some(note) = notes.next().map_err(|_| damaged())? {
                let kind = note.n_type(endian).0;
                if note.name() == OWNER {
                    manifests.push((kind, note.desc().to_vec()));
                } else if note.name() == b"GNU" && kind == NT_GNU_BUILD_ID {
                    let shown = note.desc().iter().take(SHOWN_BUILD_ID_BYTES);
                    build_id = shown.map(|byte| format!("{byte:02x}")).collect();
                }
            }
        }
    }
    match &manifests[..] {
        _ if !dynamic => Err("not a shared library (nothing to link in it)".to_owned()),
        [] if program => Err("a program, not an ELBUS plugin".to_owned()),
        [] => Err("a shared library, but not an ELBUS plugin (it has no manifest)".to_owned()),
        [(MANIFEST_VERSION, text)] => parse(text).map(|manifest| PluginManifest { build_id, ..manifest }),
        [(version, _)] => Err(format!(
            "its manifest has version {version}, this broker reads {MANIFEST_VERSION}; update the broker"
        )),
        several => Err(format!(
            "{} manifests in one library, expected one (does it link another plugin's crate?)",
            several.len()
        )),
    }
}

fn native_endianness() -> Endianness {
    if cfg!(target_endian = "little") { Endianness::Little } else { Endianness::Big }
}

fn is_pie(entry: &impl Dyn<Endian = Endianness>, endian: Endianness) -> bool {
    entry.tag(endian) == DT_FLAGS_1 && entry.val(endian) & DF_1_PIE.0 != 0
}

/// Parses a manifest. Unknown keys belong to later versions; all keys that are checked are required.
fn parse(text: &[u8]) -> Result<PluginManifest, String> {
    let text = std::str::from_utf8(text).map_err(|_| "its manifest is not UTF-8".to_owned())?;
    let optional = |key| value(text, key).unwrap_or_default().to_owned();
    let required = |key| match value(text, key) {
        Some(value) if !value.is_empty() => Ok(value.to_owned()),
        _ => Err(format!("its manifest has no {key:?}")),
    };
    Ok(PluginManifest {
        name: required("name")?,
        version: required("version")?,
        api: required("api")?,
        target: required("target")?,
        entry: required("entry")?,
        panic: required("panic")?,
        rustc: optional("rustc"),
        about: optional("about"),
        requires: optional("requires"),
        build_id: String::new(),
    })
}

/// Returns whether a plugin built for one API version works with a broker of another: same major version and
/// no newer minor version; while the major version is 0, the same minor version.
fn api_fits(plugin: (u32, u32), broker: (u32, u32)) -> bool {
    plugin.0 == broker.0 && if broker.0 == 0 { plugin.1 == broker.1 } else { plugin.1 <= broker.1 }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Checks whether this broker can load a library with this manifest.
fn check(manifest: &PluginManifest) -> Result<(), String> {
    let PluginManifest { name, version: plugin_version, api, target, panic, .. } = manifest;
    let who = format!("{name} {plugin_version}");
    if target != TARGET {
        return Err(format!("{who} was built for {target}, this broker for {TARGET}"));
    }
    if panic != "unwind" {
        let remedy = "rebuild it with panic = \"unwind\"";
        return Err(format!(
            "{who} was built with panic = {panic:?}, so a panic in it would end the broker; {remedy}"
        ));
    }
    let Some(plugin) = version(api) else {
        return Err(format!("{who} was built for the unreadable API version {api:?}"));
    };
    let broker = version(API).unwrap_or_default();
    if !api_fits(plugin, broker) {
        let remedy =
            if plugin > broker { "update the broker, or rebuild the plugin" } else { "rebuild the plugin" };
        return Err(format!("{who} was built for plugin API {api}, this broker has {API}; {remedy}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_of_the_same_major_and_no_newer_minor_version_fit() {
        for (plugin, broker, fits) in [
            ((1, 2), (1, 2), true),
            ((1, 1), (1, 2), true),
            ((1, 3), (1, 2), false),
            ((2, 0), (1, 2), false),
            ((1, 9), (2, 0), false),
            ((0, 2), (0, 2), true),
            ((0, 1), (0, 2), false),
            ((0, 3), (0, 2), false),
        ] {
            assert_eq!(api_fits(plugin, broker), fits, "{plugin:?} {broker:?}");
        }
    }

    #[test]
    fn files_that_are_not_libraries_are_refused() {
        assert!(inspect(b"").unwrap_err().contains("empty"));
        assert!(inspect(b"hello").unwrap_err().contains("no ELF"));
        assert!(inspect(b"\x7fELF").unwrap_err().contains("cut off"));
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(inspect(&program).unwrap_err().contains("a program"));
    }

    #[test]
    fn manifests_are_checked() {
        let text =
            format!("name=x\nversion=1.0.0\napi={API}\ntarget={TARGET}\nentry=e\npanic=unwind\nlater=1");
        let manifest = parse(text.as_bytes()).unwrap();
        assert_eq!(check(&manifest), Ok(()));
        let refused = |change: fn(&mut PluginManifest)| {
            let mut other = manifest.clone();
            change(&mut other);
            check(&other).unwrap_err()
        };
        assert!(refused(|r| r.api = "99.0".into()).contains("plugin API 99.0"));
        assert!(refused(|r| r.api = "x".into()).contains("unreadable"));
        assert!(refused(|r| r.target = "vax".into()).contains("vax"));
        assert!(refused(|r| r.panic = "abort".into()).contains("abort"));
        assert!(parse(b"name=x").unwrap_err().contains("version"));
    }
}
