//! Refused folders, symbolic links that are not followed, and atomic replacement of files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_files::{Folder, FolderError};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    process::geteuid,
};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, lchown, symlink},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn every_folder_on_the_path_is_checked() {
    let root = tempfile::tempdir().unwrap();
    let inner = root.path().join("a/b");
    fs::create_dir_all(&inner).unwrap();
    Folder::open(&inner).unwrap();
    Folder::open(&inner.join("../b/.")).unwrap();
    for open in [root.path().join("a"), inner.clone()] {
        mode(&open, 0o777);
        assert_eq!(
            Folder::open(&inner).unwrap_err(),
            FolderError::Writable { path: open.clone(), mode: 0o777 }
        );
        mode(&open, 0o1777);
        Folder::open(&inner).unwrap();
        mode(&open, 0o775);
    }
    let missing = inner.join("c");
    assert_eq!(Folder::open(&missing).unwrap_err(), FolderError::Missing { path: missing.clone() });
    fs::write(&missing, "").unwrap();
    let error = FolderError::System { path: missing.clone(), error: Errno::NOTDIR };
    assert_eq!(Folder::of(&missing.join("x")).unwrap_err(), error);
    assert!(matches!(Folder::of(Path::new("/")), Err(FolderError::NoFile { .. })));
}

#[test]
fn only_links_of_root_or_the_user_are_followed() {
    let root = tempfile::tempdir().unwrap();
    let (folder, link) = (root.path().join("folder"), root.path().join("link"));
    fs::create_dir(&folder).unwrap();
    symlink("folder/../folder", &link).unwrap();
    Folder::open(&link).unwrap();
    symlink("ring", root.path().join("ring")).unwrap();
    let error = Folder::open(&root.path().join("ring")).unwrap_err();
    assert!(matches!(error, FolderError::System { error: Errno::LOOP, .. }), "{error}");
    if geteuid().is_root() {
        lchown(&link, Some(12345), None).unwrap();
        assert_eq!(
            Folder::open(&link).unwrap_err(),
            FolderError::ForeignLink { path: link.clone(), uid: 12345 }
        );
    }
}

#[test]
fn files_are_reached_without_following_links() {
    let root = tempfile::tempdir().unwrap();
    let (link, target) = (root.path().join("link"), root.path().join("target"));
    fs::write(&target, "precious").unwrap();
    mode(&target, 0o600);
    symlink(&target, &link).unwrap();
    let (folder, name) = Folder::of(&link).unwrap();
    assert!(folder.node(&name).unwrap().file_type().is_symlink());
    assert_eq!(folder.open_file(&name, OFlags::WRONLY, Mode::empty()).unwrap_err(), Errno::LOOP);
    let other = folder.node("target".as_ref()).unwrap();
    assert!(other.is_own() && other.permissions() == 0o600);
    assert_eq!(folder.remove(&name, other.identity()), Ok(false), "another file");
    // the node still refers to the file, even if its name refers to another one
    fs::rename(&target, root.path().join("moved")).unwrap();
    symlink("/etc/passwd", &target).unwrap();
    other.set_permissions(0o640).unwrap();
    assert_eq!(fs::metadata(root.path().join("moved")).unwrap().permissions().mode() & 0o7777, 0o640);
    fs::hard_link(root.path().join("moved"), root.path().join("second")).unwrap();
    assert!(!folder.node("second".as_ref()).unwrap().is_own(), "a file with two names");
}

/// While another thread keeps swapping the name for a link, the file that the link refers to is never
/// written.
#[test]
fn replace_is_atomic_and_never_follows_a_link() {
    let root = tempfile::tempdir().unwrap();
    let (path, target) = (root.path().join("file"), root.path().join("target"));
    fs::write(&target, "precious").unwrap();
    let (folder, name) = Folder::of(&path).unwrap();
    let ending = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ending.load(Ordering::Relaxed) {
                _ = fs::remove_file(&path);
                _ = symlink(&target, &path);
            }
        });
        let results: Vec<_> = (0..200).map(|_| folder.replace(&name, b"new", Mode::RUSR)).collect();
        ending.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    });
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    folder.replace(&name, b"last", Mode::from_raw_mode(0o644)).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "last");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
    let left = fs::read_dir(root.path()).unwrap().count();
    assert_eq!(left, 2, "no temporary file is left");
}
