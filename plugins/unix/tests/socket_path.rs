//! The socket file: path, permissions, existing files at the path, removal.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_plugin_api::{
    Credentials,
    testing::{FakeHost, FakeInstance},
};
use elbus_testing::stream::{Bus, LONG, Peer, Stream};
use elbus_unix::Unix;
use std::{
    io::Read,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

struct Folder {
    fake: FakeHost,
    folder: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        Folder { fake: FakeHost::new(), folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn create(&self, path: &Path, more: &str) -> FakeInstance {
        self.fake.create::<Unix>("local", &format!("path = '{}'\n{more}", path.display())).unwrap()
    }

    fn refusal(&self, path: &Path, more: &str) -> String {
        self.create(path, more).start().unwrap_err().to_string()
    }
}

#[test]
fn mode_status_and_removal() {
    let folder = Folder::new();
    let path = folder.path("bus.sock");
    for (more, mode) in [("", 0o660), ("mode = '0600'", 0o600), ("mode = '777'", 0o777)] {
        let instance = folder.create(&path, more);
        assert!(!path.exists() && instance.status().addresses.is_empty(), "created but not started");
        instance.start().unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, mode);
        assert_eq!(instance.status().addresses, [format!("unix:{}", path.display())]);
        instance.stop(LONG);
        assert!(!path.exists(), "removed");
    }
    // the file is removed even without a stop
    let instance = folder.create(&path, "");
    instance.start().unwrap();
    drop(instance);
    assert!(!path.exists());
}

#[test]
fn owner_and_group_are_set_or_refused() {
    let folder = Folder::new();
    let path = folder.path("bus.sock");
    let me = folder.folder.path().metadata().unwrap();
    let instance = folder.create(&path, &format!("owner = {}\ngroup = '{}'", me.uid(), me.gid()));
    instance.start().unwrap();
    let file = path.metadata().unwrap();
    assert_eq!((file.uid(), file.gid()), (me.uid(), me.gid()));
    instance.stop(LONG);
    for (key, kind) in [("owner", "user"), ("group", "group")] {
        let text = format!("path = '{}'\n{key} = 'no-such-account'", path.display());
        let error = folder.fake.create::<Unix>("local", &text).err().unwrap().to_string();
        assert!(error.starts_with(&format!("{key}: no {kind} \"no-such-account\" in /etc/")), "{error}");
        assert!(!path.exists(), "no file is left");
    }
}

#[test]
fn a_live_socket_is_not_touched() {
    let folder = Folder::new();
    let path = folder.path("bus.sock");
    let first = folder.create(&path, "");
    first.start().unwrap();
    let inode = path.metadata().unwrap().ino();
    let error = folder.refusal(&path, "");
    assert_eq!(error, format!("path: {}: a broker is listening there already", path.display()));
    assert_eq!(path.metadata().unwrap().ino(), inode);
    first.stop(LONG);

    let _datagrams = UnixDatagram::bind(&path).unwrap();
    let error = folder.refusal(&path, "");
    assert!(error.contains("the check whether a broker listens there failed"), "{error}");
    assert!(path.exists());
}

#[test]
fn a_stale_socket_is_replaced() {
    let folder = Folder::new();
    let path = folder.path("bus.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left behind");
    let instance = folder.create(&path, "");
    instance.start().unwrap();
    instance.serve();
    UnixStream::connect(&path).unwrap();
    instance.stop(LONG);
}

#[test]
fn other_files_are_not_touched() {
    let folder = Folder::new();
    let path = folder.path("precious");
    std::fs::write(&path, "data").unwrap();
    assert_eq!(folder.refusal(&path, ""), format!("path: {}: exists and is not a socket", path.display()));
    assert_eq!(std::fs::read(&path).unwrap(), b"data");
    let link = folder.path("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(folder.refusal(&link, "").ends_with("exists and is not a socket"));
}

#[test]
fn a_file_of_another_user_is_not_removed() {
    let folder = Folder::new();
    let path = folder.path("bus.sock");
    let instance = folder.create(&path, "");
    instance.start().unwrap();
    std::fs::remove_file(&path).unwrap();
    let _theirs = UnixListener::bind(&path).unwrap();
    instance.stop(LONG);
    assert!(path.exists());
}

#[test]
fn invalid_paths_are_refused() {
    let folder = Folder::new();
    let error = folder.refusal(&folder.path("missing/bus.sock"), "");
    let missing = folder.path("missing");
    assert!(error.starts_with(&format!("path: folder {} does not exist", missing.display())), "{error}");
    let long = folder.path(&"x".repeat(108));
    let config = format!("path = '{}'", long.display());
    let error = folder.fake.create::<Unix>("local", &config).err().unwrap().to_string();
    assert!(error.starts_with("path: ") && error.contains(" the kernel accepts at most 107"), "{error}");
    let error = folder.fake.create::<Unix>("local", "path = 'x'\nmodes = '1'").err().unwrap();
    assert_eq!(error.key, "modes");
    assert!(error.message.contains("timeout_seconds") && error.message.contains("owner"), "{error}");
}

#[test]
fn of_concurrent_starts_only_one_binds_the_socket() {
    let folder = Folder::new();
    let path = folder.path("bus.sock");
    for _ in 0..10 {
        drop(UnixListener::bind(&path).unwrap()); // stale
        let instances: Vec<_> = (0..4).map(|_| folder.create(&path, "")).collect();
        let started = std::thread::scope(|scope| {
            let starts: Vec<_> = instances.iter().map(|i| scope.spawn(|| i.start().is_ok())).collect();
            starts.into_iter().filter_map(|start| start.join().unwrap().then_some(())).count()
        });
        assert_eq!(started, 1);
        UnixStream::connect(&path).unwrap();
        drop(instances);
        assert!(!path.exists());
    }
}

#[test]
fn clients_register_with_their_credentials() {
    let folder = Folder::new();
    let path = folder.path("bus.sock");
    let instance = folder.create(&path, "");
    let fake = folder.fake.clone();
    let bus = Bus::over(fake, instance, |address| {
        UnixStream::connect(address.strip_prefix("unix:").unwrap()).unwrap()
    });
    let _client = bus.client("a");
    let info = bus.fake.client_info("a").unwrap();
    let me = folder.folder.path().metadata().unwrap();
    let credentials = Credentials { pid: std::process::id() as i32, uid: me.uid(), gid: me.gid() };
    assert_eq!(info.credentials, Some(credentials));
    assert_eq!((info.kind.as_str(), info.source, info.internal), ("local_ipc", None, false));
    assert_eq!(info.port.as_deref(), path.to_str());
}

/// Stops within the runtime that serves, which therefore cannot help.
#[test]
fn a_stop_on_the_programs_runtime_drains_the_queues() {
    for threads in [1, 2] {
        let folder = Folder::new();
        let path = folder.path("bus.sock");
        let mut builder = match threads {
            1 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder.enable_all().build().unwrap();
        runtime.block_on(async {
            let instance = folder.create(&path, "");
            instance.start().unwrap();
            instance.serve();
            let client_path = path.clone();
            let (ready, registered) = tokio::sync::oneshot::channel();
            let client = std::thread::spawn(move || {
                let stream = UnixStream::connect(client_path).unwrap();
                Stream::limit(&stream, LONG);
                let mut peer = Peer(stream);
                assert_eq!(peer.introduce(b"a"), 1);
                ready.send(()).unwrap();
                peer.rest()
            });
            registered.await.unwrap();
            let payload = vec![1; 3_000_000];
            folder.fake.deliver("a", elbus_plugin_api::FrameKind::Message, "me", "", &[&payload]);
            instance.stop(Duration::from_secs(10));
            let all = client.join().unwrap();
            assert_eq!(all.len(), 3_000_009, "drained by the stopping thread");
            drop(instance);
        });
        assert!(folder.fake.failures().is_empty(), "{:?}", folder.fake.failures());
    }
}

#[test]
fn a_socket_file_that_was_removed_is_bound_again_by_a_refresh() {
    let folder = Folder::new();
    let path = folder.path("bus.sock");
    let instance = folder.create(&path, "mode = '0600'");
    instance.start().unwrap();
    instance.serve();
    let inode = path.metadata().unwrap().ino();
    instance.refresh().unwrap();
    assert_eq!(path.metadata().unwrap().ino(), inode, "an existing file stays");
    let mut before = UnixStream::connect(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    instance.refresh().unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    let mut greeting = [0; 3];
    before.read_exact(&mut greeting).unwrap();
    let mut after = UnixStream::connect(&path).unwrap();
    after.read_exact(&mut greeting).unwrap();
    // another user's file is not changed, and reported
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    let error = instance.refresh().unwrap_err().to_string();
    assert!(error.ends_with("exists and is not a socket"), "{error}");
    std::fs::remove_file(&path).unwrap();
    instance.refresh().unwrap();
    UnixStream::connect(&path).unwrap().read_exact(&mut greeting).unwrap();
    instance.stop(LONG);
    assert!(!path.exists());
}

/// Sets a flag when dropped.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Another process that may write to the folder keeps replacing the socket by a link to a file of the
/// broker's user. The owner and permissions of that file do not change, and it is never removed.
#[test]
fn a_link_swapped_for_the_socket_changes_no_other_file() {
    let folder = Folder::new();
    let (path, target) = (folder.path("bus.sock"), folder.path("target"));
    std::fs::write(&target, "secret").unwrap();
    std::fs::set_permissions(&target, PermissionsExt::from_mode(0o600)).unwrap();
    let me = target.metadata().unwrap();
    // only root can give files away
    let owner = if me.uid() == 0 { "\nowner = 12345\ngroup = 12345" } else { "" };
    let stopping = AtomicBool::new(false);
    let swaps = std::thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            let mut swaps = 0;
            while !stopping.load(Ordering::Relaxed) {
                if path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket()) {
                    std::fs::remove_file(&path).ok();
                    swaps += u32::from(std::os::unix::fs::symlink(&target, &path).is_ok());
                    while path.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
                        if stopping.load(Ordering::Relaxed) {
                            break;
                        }
                        std::thread::yield_now();
                    }
                }
            }
            swaps
        });
        // ends the attack in any case
        let end = Ending(&stopping);
        for _ in 0..500 {
            let instance = folder.create(&path, &format!("mode = '0666'{owner}"));
            // the start may fail, depending on which is faster
            if let Err(error) = instance.start() {
                assert_eq!(error.key, "path", "{error}");
            }
            instance.stop(LONG);
            std::fs::remove_file(&path).ok();
        }
        drop(end);
        attacker.join().unwrap()
    });
    println!("{swaps} swaps");
    let after = target.metadata().unwrap();
    assert_eq!((after.uid(), after.gid(), after.mode()), (me.uid(), me.gid(), me.mode()));
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "secret");
}

#[test]
fn a_folder_writable_for_all_users_must_be_sticky() {
    let folder = Folder::new();
    let open = folder.path("open");
    std::fs::create_dir_all(open.join("inner")).unwrap();
    let mode = |mode| std::fs::set_permissions(&open, PermissionsExt::from_mode(mode)).unwrap();
    for path in [open.join("bus.sock"), open.join("inner/bus.sock")] {
        mode(0o777);
        let error = folder.refusal(&path, "");
        assert!(error.starts_with("path: folder ") && error.contains("mode 0777"), "{error}");
        assert!(!path.exists());
        mode(0o1777);
        let instance = folder.create(&path, "");
        instance.start().unwrap();
        instance.stop(LONG);
    }
}
