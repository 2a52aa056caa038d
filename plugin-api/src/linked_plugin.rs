//! Plugins that are linked into a program, and the macro that exports a plugin.

use crate::{
    abi::{IntoRaw, PluginRef, convert::sealed::Sealed},
    manifest,
};

/// A plugin that is linked into the program: what `plugin()` of its crate returns.
#[derive(Clone, Copy)]
pub struct LinkedPlugin {
    module: PluginRef,
    manifest: &'static str,
}

impl LinkedPlugin {
    /// Creates it; used by [`export_plugin!`](crate::export_plugin).
    #[doc(hidden)]
    pub const fn new(module: PluginRef, manifest: &'static str) -> Self {
        LinkedPlugin { module, manifest }
    }

    /// Returns the name of its crate.
    pub fn name(&self) -> &'static str {
        manifest::value(self.manifest, "name").unwrap_or("?")
    }

    /// Returns the version of its crate.
    pub fn version(&self) -> &'static str {
        manifest::value(self.manifest, "version").unwrap_or("?")
    }

    /// The plugins that must be configured beside it, with blanks between.
    pub fn requires(&self) -> &'static str {
        manifest::value(self.manifest, "requires").unwrap_or("")
    }

    /// Returns what it does.
    pub fn about(&self) -> &'static str {
        manifest::value(self.manifest, "about").unwrap_or("")
    }
}

impl Sealed for LinkedPlugin {}

impl IntoRaw for LinkedPlugin {
    type Raw = PluginRef;

    fn into_raw(self) -> PluginRef {
        self.module
    }
}

impl std::fmt::Debug for LinkedPlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LinkedPlugin({} {})", self.name(), self.version())
    }
}

/// Exports a type as a plugin: `export_plugin!(MyPlugin);` once, at the root of a crate of crate-type
/// `["cdylib", "rlib"]`.
///
/// It writes the manifest, the one symbol a library exports (`elbus_plugin_` and the name of the crate, so
/// that several plugins can be linked into one program), and `plugin()` for programs that link the crate.
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty) => {
        const ELBUS_MANIFEST_PARTS: &[&str] = &[
            "name=",
            env!("CARGO_PKG_NAME"),
            "\nversion=",
            env!("CARGO_PKG_VERSION"),
            "\napi=",
            $crate::manifest::API,
            "\ntarget=",
            $crate::manifest::TARGET,
            "\nentry=elbus_plugin_",
            env!("CARGO_CRATE_NAME"),
            "\npanic=",
            $crate::manifest::PANIC,
            "\nrustc=",
            $crate::manifest::RUSTC,
            "\nrequires=",
            <$plugin as $crate::Plugin>::REQUIRES,
            "\nabout=",
            <$plugin as $crate::Plugin>::ABOUT,
        ];

        #[used]
        #[unsafe(link_section = ".note.elbus")]
        static ELBUS_MANIFEST: $crate::manifest::PluginManifest<
            { $crate::manifest::text_len(ELBUS_MANIFEST_PARTS) },
        > = $crate::manifest::PluginManifest::new(ELBUS_MANIFEST_PARTS);

        #[unsafe(export_name = concat!("elbus_plugin_", env!("CARGO_CRATE_NAME")))]
        static ELBUS_ENTRY: $crate::abi::export::Entry =
            $crate::abi::export::Entry::new::<$plugin>(ELBUS_MANIFEST.as_ptr());

        /// Returns the plugin, for a program that links it.
        pub fn plugin() -> $crate::LinkedPlugin {
            $crate::LinkedPlugin::new($crate::abi::export::Module::<$plugin>::ROOT, ELBUS_MANIFEST.text())
        }
    };
}
