//! Lists the files of the page, those of the JavaScript client, and the sample configurations, which document
//! the plugins: the library contains them, each with the path at which it is served.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// Folders, and the paths below which their files are served.
const FOLDERS: [(&str, &str); 2] = [("page", "/page"), ("../../clients/javascript/src", "/elbus")];

/// Single files.
const FILES: [(&str, &str); 2] = [
    ("../../config/broker.toml", "/config/broker.toml"),
    ("../../config/access.toml", "/config/access.toml"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let mut list = String::from("[\n");
    for (file, served) in FILES {
        println!("cargo:rerun-if-changed={file}");
        writeln!(list, "({served:?}, include_bytes!({:?}) as &[u8]),", root.join(file).canonicalize()?)?;
    }
    for (folder, served) in FOLDERS {
        println!("cargo:rerun-if-changed={folder}");
        let mut files = Vec::new();
        find(&root.join(folder), &mut files)?;
        files.sort();
        for file in files {
            let path = file.strip_prefix(root.join(folder))?;
            let path = format!("{served}/{}", path.to_str().ok_or("a name is not UTF-8")?);
            writeln!(list, "({path:?}, include_bytes!({:?}) as &[u8]),", file.canonicalize()?)?;
        }
    }
    list.push(']');
    fs::write(Path::new(&std::env::var("OUT_DIR")?).join("files.rs"), list)?;
    println!("cargo:rerun-if-changed=build.rs");
    Ok(())
}

fn find(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}
