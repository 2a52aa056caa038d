//! The disk store with files that are damaged, and disks that fail or do not answer.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::settings::{StoreKind, TopicSettings};
use elbus_plugin_api::{
    Op, Payload, Qos,
    abi::{RunFrame, RunHeader},
    hooks::InterceptedRun,
    testing::FakeHost,
};
use redb::StorageBackend;
use std::io;

const PATIENCE: Duration = Duration::from_secs(30);

/// A disk that fails or hangs when the test says so.
#[derive(Debug)]
struct Disturbed {
    file: FileBackend,
    disturbance: Arc<Disturbance>,
}

#[derive(Debug, Default)]
struct Disturbance {
    fails: AtomicBool,
    hangs: AtomicBool,
    is_hanging: AtomicBool,
    opened: AtomicU64,
}

impl Disturbed {
    fn check(&self) -> io::Result<()> {
        while self.disturbance.hangs.load(Relaxed) {
            self.disturbance.is_hanging.store(true, Relaxed);
            std::thread::sleep(Duration::from_millis(1));
        }
        match self.disturbance.fails.load(Relaxed) {
            true => Err(io::Error::from(io::ErrorKind::StorageFull)),
            false => Ok(()),
        }
    }
}

impl StorageBackend for Disturbed {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.file.write(offset, data)
    }
}

/// An instance without hooks.
struct Instance {
    fake: FakeHost,
    topics: Arc<Topics>,
    disk: Disk,
}

impl Instance {
    fn new(path: &Path) -> Self {
        let fake = FakeHost::new();
        let table = |filter: &str, store, max_topics| TopicSettings {
            filter: filter.to_owned(),
            store,
            max_topics,
            max_bytes: 1 << 20,
        };
        let tables = vec![table("d/#", StoreKind::Disk, 1000), table("#", StoreKind::Memory, 10)];
        let topics = Arc::new(Topics::new(fake.host("retain"), tables));
        let disk = Disk::new(path.to_owned(), Duration::from_millis(1), &topics);
        Instance { fake, topics, disk }
    }

    /// Starts one that takes the lock of its file, which disturbed ones do not.
    fn start_with_lock(path: &Path) -> Self {
        let instance = Self::new(path);
        instance.disk.start(&instance.fake.host("retain"), &instance.topics).unwrap();
        instance
    }

    fn start(path: &Path, disturbance: &Arc<Disturbance>) -> Self {
        let instance = Self::new(path);
        let disturbance = disturbance.clone();
        let open = move |path: &Path| {
            disturbance.opened.fetch_add(1, Relaxed);
            let disturbance = disturbance.clone();
            StoreFile::open(path, |file| Disturbed { file, disturbance })
        };
        let host = instance.fake.host("retain");
        instance.disk.start_with(&host, &instance.topics, Box::new(open)).unwrap();
        instance
    }

    fn keep(&self, topic: &str, payload: &str) {
        let frames = [RunFrame::new(topic, Payload::from(payload.as_bytes()))];
        let header = RunHeader::new(Op::Publish, Qos::NO, "s", 1, "");
        self.topics.keep_run(&mut InterceptedRun::new(header, &frames, &mut [0]));
    }

    fn payload(&self, topic: &str) -> Option<String> {
        self.topics.get(topic).map(|value| String::from_utf8(value.payload().to_vec()).unwrap())
    }

    fn wait_until(&self, ready: impl Fn(&str) -> bool) {
        let detail = || self.disk.detail();
        assert!(self.fake.wait_until(PATIENCE, |_| ready(&detail())), "{}", detail());
    }

    fn stop(self) {
        self.disk.stop(PATIENCE);
    }
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("retain.redb");
    (folder, path)
}

#[test]
fn values_of_disk_tables_are_there_after_a_restart() {
    let (_folder, path) = file();
    let undisturbed = Arc::default();
    let instance = Instance::start(&path, &undisturbed);
    for (topic, payload) in [("d/a", "1"), ("d/a", "2"), ("d/b", "3"), ("d/c", "4"), ("d/c", ""), ("m", "5")]
    {
        instance.keep(topic, payload);
    }
    instance.stop();
    let instance = Instance::start(&path, &undisturbed);
    let of = |instance: &Instance| ["d/a", "d/b", "d/c", "m"].map(|topic| instance.payload(topic));
    assert_eq!(of(&instance), [Some("2".into()), Some("3".into()), None, None]);
    assert_eq!(instance.topics.get("d/a").unwrap().sender(), "s");
    // committed without a stop, and deleted
    assert!(instance.topics.delete("d/b"));
    instance.keep("d/a", "6");
    instance.wait_until(|detail| detail != "written in 0 commits");
    instance.stop();
    let instance = Instance::start(&path, &undisturbed);
    assert_eq!(of(&instance), [Some("6".into()), None, None, None]);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    instance.stop();
}

#[test]
fn a_damaged_file_is_moved_aside() {
    let (_folder, path) = file();
    let undisturbed = Arc::default();
    let instance = Instance::start(&path, &undisturbed);
    (0..200).for_each(|number| instance.keep(&format!("d/{number}"), &"x".repeat(500)));
    instance.stop();
    let intact = std::fs::read(&path).unwrap();
    let zeroes = vec![0; intact.len()];
    let mut flipped = intact.clone();
    let at = flipped.windows(50).rposition(|part| part == [b'x'; 50]).unwrap();
    flipped[at] = b'y';
    let half = &intact[..intact.len() / 2];
    let overwritten = [&intact[..9], b"not a store"].concat();
    let all = [&overwritten[..], &zeroes, half, &flipped];
    for (number, damaged) in all.into_iter().enumerate() {
        std::fs::write(&path, damaged).unwrap();
        let instance = Instance::start(&path, &undisturbed);
        for (earlier, damaged) in all.iter().enumerate().take(number + 1) {
            let ending = if earlier == 0 { String::new() } else { format!(".{}", earlier + 1) };
            let aside = path.with_extension(format!("redb.damaged{ending}"));
            assert_eq!(std::fs::read(aside).unwrap(), *damaged, "{earlier} of {number}");
        }
        assert_eq!(instance.payload("d/7"), None);
        instance.keep("d/7", "new");
        instance.stop();
        let instance = Instance::start(&path, &undisturbed);
        assert_eq!(instance.payload("d/7"), Some("new".into()));
        instance.stop();
    }
}

#[test]
fn a_file_of_another_kind_is_left_alone() {
    let (_folder, path) = file();
    for text in ["important", "x"] {
        std::fs::write(&path, text).unwrap();
        let instance = Instance::start(&path, &Arc::default());
        instance.keep("d/a", "1");
        assert!(instance.disk.detail().ends_with("; the disk fails"));
        instance.stop();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn a_file_that_is_removed_or_replaced_while_it_is_in_use_is_written_again() {
    let (folder, path) = file();
    let instance = Instance::start(&path, &Arc::default());
    instance.keep("d/a", "1");
    instance.wait_until(|detail| detail == "written in 1 commits");
    for (number, replaced) in [(0, false), (1, true)] {
        if replaced {
            let other = folder.path().join("other");
            Instance::start(&other, &Arc::default()).stop();
            std::fs::rename(&other, &path).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        instance.keep("d/b", &number.to_string());
        instance.wait_until(|detail| detail.ends_with("; the disk fails"));
        instance.wait_until(|detail| detail == format!("written in {} commits", number + 2));
    }
    instance.stop();
    let instance = Instance::start(&path, &Arc::default());
    assert_eq!(["d/a", "d/b"].map(|topic| instance.payload(topic)), ["1", "1"].map(|text| Some(text.into())));
    instance.stop();
}

#[test]
fn a_full_disk_holds_nobody_and_gets_all_values_once_it_has_room() {
    let (_folder, path) = file();
    let disturbance = Arc::new(Disturbance::default());
    let instance = Instance::start(&path, &disturbance);
    instance.keep("d/deleted", "1");
    instance.keep("d/a", "1");
    instance.wait_until(|detail| detail != "written in 0 commits");
    disturbance.fails.store(true, Relaxed);
    instance.keep("d/a", "2");
    instance.wait_until(|detail| detail.ends_with("; the disk fails"));
    for number in 0..100_000 {
        instance.keep(&format!("d/{}", number % 500), &number.to_string());
    }
    instance.keep("d/deleted", "");
    disturbance.fails.store(false, Relaxed);
    instance.wait_until(|detail| !detail.ends_with("; the disk fails"));
    instance.stop();
    let instance = Instance::start(&path, &Arc::default());
    assert_eq!(
        ["d/a", "d/deleted", "d/499"].map(|topic| instance.payload(topic)),
        [Some("2".into()), None, Some("99999".into()),]
    );
    instance.stop();
}

#[test]
fn a_disk_that_does_not_answer_holds_nobody_and_little_is_recorded_meanwhile() {
    let (_folder, path) = file();
    let disturbance = Arc::new(Disturbance::default());
    let instance = Instance::start(&path, &disturbance);
    disturbance.hangs.store(true, Relaxed);
    instance.keep("d/a", "1");
    assert!(instance.fake.wait_until(PATIENCE, |_| disturbance.is_hanging.load(Relaxed)));
    // topics come and go
    for number in 0..400_000 {
        let topic = format!("d/{number}");
        instance.keep(&topic, "x");
        instance.keep(&topic, "");
    }
    instance.keep("d/a", "2");
    assert!(instance.topics.recorded() <= 16 * 17_000, "{}", instance.topics.recorded());
    disturbance.hangs.store(false, Relaxed);
    instance.stop();
    let instance = Instance::start(&path, &Arc::default());
    assert_eq!((instance.payload("d/a"), instance.topics.tables()[0].topics()), (Some("2".into()), 1));
    instance.stop();
}

#[test]
fn values_of_a_disk_that_works_later_are_added_to_those_that_are_newer() {
    let (folder, path) = file();
    let instance = Instance::start(&path, &Arc::default());
    instance.keep("d/a", "old");
    instance.keep("d/b", "kept");
    instance.stop();
    let elsewhere = folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let moved = elsewhere.join("retain.redb");
    std::fs::rename(&path, folder.path().join("original")).unwrap();
    std::fs::remove_dir(&elsewhere).unwrap();
    // the folder is missing
    let instance = Instance::start(&moved, &Arc::default());
    assert!(instance.disk.detail().ends_with("; the disk fails"));
    instance.keep("d/a", "new");
    let ready = folder.path().join("ready");
    std::fs::create_dir(&ready).unwrap();
    std::fs::rename(folder.path().join("original"), ready.join("retain.redb")).unwrap();
    std::fs::rename(&ready, &elsewhere).unwrap();
    instance.wait_until(|detail| !detail.ends_with("; the disk fails"));
    assert_eq!(
        ["d/a", "d/b"].map(|topic| instance.payload(topic)),
        [Some("new".into()), Some("kept".into())]
    );
    instance.stop();
    let instance = Instance::start(&moved, &Arc::default());
    assert_eq!(
        ["d/a", "d/b"].map(|topic| instance.payload(topic)),
        [Some("new".into()), Some("kept".into())]
    );
    instance.stop();
}

#[test]
fn a_file_is_used_by_one_instance_at_a_time() {
    let (_folder, path) = file();
    let one = Instance::start_with_lock(&path);
    one.keep("d/a", "1");
    let other = Instance::start_with_lock(&path);
    assert!(other.disk.detail().ends_with("; the disk fails"));
    one.stop();
    other.wait_until(|detail| !detail.ends_with("; the disk fails"));
    assert_eq!(other.payload("d/a"), Some("1".into()));
    other.stop();
}
