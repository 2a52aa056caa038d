//! The Rust programs in README.md are programs of this package, and their dependencies exist.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_broker::{Broker, PluginDeclaration};
use elbus_client::{Client, Qos};
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

/// The programs, in the order of README.md.
const PROGRAMS: [&str; 2] = ["lamp", "embed"];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Returns the code blocks of README.md in a language.
fn blocks(language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let opening = format!("```{language}\n");
    text.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// Returns the source of a program without its `//!` header.
fn source(program: &str) -> String {
    let path = format!("{}/src/bin/{program}.rs", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let (header, code) = text.split_once("\n\n").unwrap();
    assert!(header.lines().all(|line| line.starts_with("//!")), "{header}");
    code.to_owned()
}

#[test]
fn rust_blocks_are_programs_of_this_package() {
    let blocks = blocks("rust");
    assert_eq!(blocks.len(), PROGRAMS.len(), "name the program of each block in PROGRAMS");
    for (block, program) in blocks.iter().zip(PROGRAMS) {
        assert_eq!(*block, source(program), "README.md differs from src/bin/{program}.rs");
    }
}

#[test]
fn dependency_blocks_name_packages_and_features_that_exist() {
    let tables = blocks("toml").into_iter().filter(|block| block.starts_with("[dependencies]"));
    let tables: Vec<toml::Table> = tables.map(|block| block.parse().unwrap()).collect();
    assert_eq!(tables.len(), PROGRAMS.len());
    for (table, program) in tables.iter().zip(PROGRAMS) {
        let dependencies = table["dependencies"].as_table().unwrap();
        let code = source(program);
        for (name, dependency) in dependencies {
            assert!(code.contains(&format!("{}::", name.replace('-', "_"))), "{program} does not use {name}");
            let Some(path) = dependency.get("path") else { continue };
            let path = path.as_str().unwrap().strip_prefix("CLONE/").unwrap();
            let manifest = std::fs::read_to_string(root().join(path).join("Cargo.toml")).unwrap();
            let manifest: toml::Table = manifest.parse().unwrap();
            assert_eq!(manifest["package"]["name"].as_str(), Some(name.as_str()));
            for feature in dependency.get("features").and_then(|list| list.as_array()).into_iter().flatten() {
                let declared = manifest["features"].get(feature.as_str().unwrap());
                assert!(declared.is_some(), "{name} has no feature {feature}");
            }
        }
        let used = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let used: BTreeSet<_> = used.filter(|word| word.starts_with("elbus_") || *word == "tokio").collect();
        let declared: BTreeSet<_> = dependencies.keys().map(|name| name.replace('-', "_")).collect();
        assert_eq!(used, declared.iter().map(String::as_str).collect(), "{program}");
    }
}

#[test]
fn the_lamp_answers_calls_and_prints_publications() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("elbus.sock");
    let unix = PluginDeclaration::linked("unix", elbus_unix::plugin()).set("path", socket.to_str().unwrap());
    let _broker = Broker::builder().plugin(unix).start().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, _) = Client::connect(socket.to_str().unwrap(), "plant.test").await.unwrap();
        let mut states = client.subscribe("display/state").await.unwrap();
        let mut lamp = Command::new(env!("CARGO_BIN_EXE_lamp"))
            .env("XDG_RUNTIME_DIR", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(states.next().await.unwrap().payload(), b"on");

        assert_eq!(client.call_as::<u8>("plant.lamp", "brightness", &150).await.unwrap(), 100);
        client.publish("temperature/boiler", "71.5", Qos::PROCESSED).await.unwrap();
        let mut line = String::new();
        BufReader::new(lamp.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "plant.test: temperature/boiler = 71.5\n");
        lamp.kill().unwrap();
        lamp.wait().unwrap();
    });
}
