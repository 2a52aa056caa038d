//! The manifest of a plugin: an ELF note that describes a library, readable without loading it.
//!
//! Owner `ELBUS`, type = version of the manifest, content `key=value` lines (`readelf -n` shows it). This
//! module owns the layout of the note and the version of the API; reading it from a file is left to the
//! broker. A reader ignores unknown keys and treats missing ones as empty unless it needs them, so keys are
//! added without a new version of the manifest: libraries built before `requires` load as those that require
//! nothing.

/// The version of this API, `major.minor`: what a plugin was built for.
pub const API: &str = concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));
/// The target triple this crate was built for.
pub const TARGET: &str = env!("ELBUS_TARGET");
/// The compiler this crate was built with, for messages only.
pub const RUSTC: &str = env!("ELBUS_RUSTC");
/// The panic strategy this crate was built with.
pub const PANIC: &str = if cfg!(panic = "unwind") { "unwind" } else { "abort" };
/// The owner of the note.
pub const OWNER: &[u8] = b"ELBUS";
/// The version of the manifest: the type of the note.
pub const MANIFEST_VERSION: u32 = 1;

/// The manifest as a note. Bytes only, since it must be readable in the file, before any relocation.
#[repr(C, align(4))]
pub struct PluginManifest<const N: usize> {
    name_bytes: u32,
    text_bytes: u32,
    kind: u32,
    owner: [u8; 8],
    text: [u8; N],
}

impl<const N: usize> PluginManifest<N> {
    /// Creates a manifest of these parts, concatenated; the rest of the `N` bytes is filled with line feeds.
    ///
    /// # Panics
    /// At compile time, if the parts are longer than `N`.
    pub const fn new(parts: &[&str]) -> Self {
        let mut text = [b'\n'; N];
        let mut offset = 0;
        let mut part = 0;
        while part < parts.len() {
            let bytes = parts[part].as_bytes();
            let mut i = 0;
            while i < bytes.len() {
                text[offset] = bytes[i];
                i += 1;
                offset += 1;
            }
            part += 1;
        }
        PluginManifest {
            name_bytes: 6,
            text_bytes: N as u32,
            kind: MANIFEST_VERSION,
            owner: *b"ELBUS\0\0\0",
            text,
        }
    }

    /// Returns the text, for a program that has the plugin linked in.
    pub const fn text(&'static self) -> &'static str {
        match std::str::from_utf8(&self.text) {
            Ok(text) => text,
            Err(_) => "",
        }
    }

    /// Returns the address of the note, to be referenced so that no linker drops it.
    pub const fn as_ptr(&'static self) -> *const u8 {
        self as *const Self as *const u8
    }
}

/// Returns the length of the concatenated parts, padded to the four bytes that notes are aligned to.
pub const fn text_len(parts: &[&str]) -> usize {
    let mut len = 0;
    let mut part = 0;
    while part < parts.len() {
        len += parts[part].len();
        part += 1;
    }
    len.next_multiple_of(4)
}

/// Returns the value of `key` in the text of a manifest.
///
/// # Examples
/// ```
/// use elbus_plugin_api::manifest::value;
///
/// let text = "name=elbus-tcp\nversion=1.0.0";
/// assert_eq!(value(text, "version"), Some("1.0.0"));
/// assert_eq!(value(text, "requires"), None);
/// ```
pub fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().filter_map(|line| line.split_once('=')).find(|(k, _)| *k == key).map(|(_, v)| v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_manifest_is_padded() {
        const PARTS: &[&str] = &["name=", "demo", "\nversion=", "1.2.3"];
        static MANIFEST: PluginManifest<{ text_len(PARTS) }> = PluginManifest::new(PARTS);
        assert_eq!(value(MANIFEST.text(), "name"), Some("demo"));
        assert_eq!(value(MANIFEST.text(), "version"), Some("1.2.3"));
        assert_eq!(value(MANIFEST.text(), "nothing"), None);
        assert_eq!(MANIFEST.text().len() % 4, 0);
    }
}
