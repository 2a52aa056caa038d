//! A library for tests: its manifest identifies it as a plugin of this API, but its module has another
//! layout, as if it had been built against an API that was changed without a new version.
#![allow(missing_docs, non_local_definitions)]

use abi_stable::{
    StableAbi, declare_root_module_statics,
    library::{CheckTypeLayout, LibHeader, RootModule, RootModuleResult},
    package_version_strings,
    pmr::PrefixRefTrait,
    prefix_type::WithMetadata,
    sabi_types::VersionStrings,
    staticref,
    std_types::RResult,
};
use elbus_plugin_api::manifest;

extern "C" fn create(_: u64) -> u64 {
    0
}

#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRef)))]
pub struct PluginModule {
    #[sabi(last_prefix_field)]
    pub create: extern "C" fn(u64) -> u64,
}

impl RootModule for PluginRef {
    declare_root_module_statics! {PluginRef}
    const BASE_NAME: &'static str = "elbus";
    const NAME: &'static str = "elbus plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

struct Make;

impl Make {
    staticref!(const VALUE: WithMetadata<PluginModule> = WithMetadata::new(PluginModule { create }));
}

extern "C" fn root() -> RootModuleResult {
    // SAFETY: read only through the header below, which is of the same type.
    RResult::ROk(unsafe { PluginRef(Make::VALUE.as_prefix()).to_prefix_ref().cast() })
}

const PARTS: &[&str] = &[
    "name=elbus-foreign\nversion=0.1.0\napi=",
    manifest::API,
    "\ntarget=",
    manifest::TARGET,
    "\nentry=elbus_plugin_elbus_foreign\npanic=unwind",
];

#[used]
#[unsafe(link_section = ".note.elbus")]
static NOTE: manifest::PluginManifest<{ manifest::text_len(PARTS) }> = manifest::PluginManifest::new(PARTS);

#[unsafe(export_name = "elbus_plugin_elbus_foreign")]
static ENTRY: LibHeader =
    // SAFETY: `root` returns the prefix reference of the type named here.
    unsafe { LibHeader::from_constructor::<PluginRef>(root, CheckTypeLayout::Yes) };
