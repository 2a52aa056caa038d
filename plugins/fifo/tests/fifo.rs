//! Lines written to a real FIFO, and the requests that the plugin dispatches.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_fifo::Fifo;
use elbus_plugin_api::{
    Code, Op, Qos,
    testing::{FakeHost, FakeInstance},
};
use parking_lot::Mutex;
use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::PathBuf,
    sync::Once,
    time::Duration,
};

const LONG: Duration = Duration::from_secs(30);

/// The log of all tests in this file, since a FIFO logs on its own thread.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn logged() -> String {
    String::from_utf8(LOG.lock().clone()).unwrap()
}

struct Bench {
    fake: FakeHost,
    fifo: FakeInstance,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(more: &str) -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).init();
        });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bus.fifo");
        let fake = FakeHost::new();
        let fifo = fake.create::<Fifo>("lines", &format!("path = '{}'\n{more}", path.display())).unwrap();
        assert!(!path.exists(), "create has no effect on files");
        fifo.start().unwrap();
        Bench { fake, fifo, path, _dir: dir }
    }

    fn writer(&self) -> File {
        File::options().write(true).open(&self.path).unwrap()
    }

    /// Waits until `count` requests have been dispatched, and returns them.
    fn requests(&self, count: usize) -> Vec<(Op, String, Vec<u8>)> {
        assert!(
            self.fake.wait_until(LONG, |fake| fake.requests().len() >= count),
            "{:?}",
            self.fake.requests()
        );
        let requests = self.fake.requests();
        assert_eq!(requests.len(), count, "{requests:?}");
        requests
            .into_iter()
            .map(|mut request| {
                assert_eq!((request.sender.as_str(), request.qos), (".broker", Qos::NO));
                assert_eq!(request.payloads.len(), 1);
                (request.op, request.target, request.payloads.remove(0))
            })
            .collect()
    }
}

#[test]
fn every_form_of_line_is_sent() {
    let bench = Bench::new("");
    bench.fifo.serve();
    let meta = fs::metadata(&bench.path).unwrap();
    assert!(meta.file_type().is_fifo());
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    assert_eq!(bench.fake.system_senders(), [(".fifo".to_owned(), false)]);
    assert_eq!(bench.fifo.status().addresses, [format!("fifo:{}", bench.path.display())]);
    bench.writer().write_all(b"a.b hello to you\nskipped\n\nx.* all\r\n=t/1 pub = x\n").unwrap();
    // another writer, after the first has closed
    bench.writer().write_all(b"svc .note it\nsvc :go n=5\n").unwrap();
    let expected: [(Op, &str, &[u8]); 5] = [
        (Op::Message, "a.b", b"hello to you"),
        (Op::Broadcast, "x.*", b"all"),
        (Op::Publish, "t/1", b"pub = x"),
        (Op::Message, "svc", b"\0note it"),
        (Op::Message, "svc", b"\x01\0\0\0\0go\0\x81\xA1n\x05"),
    ];
    let expected = expected.map(|(op, target, payload)| (op, target.to_owned(), payload.to_vec()));
    assert_eq!(bench.requests(5), expected);
    bench.fifo.stop(LONG);
    assert!(!bench.path.exists());
    assert!(bench.fifo.status().addresses.is_empty());
}

#[test]
fn nothing_is_read_before_serve() {
    let bench = Bench::new("mode = '0600'");
    let mut writer = bench.writer();
    writer.write_all(b"early bird\n").unwrap();
    assert_eq!(bench.fake.requests(), []);
    bench.fifo.serve();
    assert_eq!(bench.requests(1), [(Op::Message, "early".to_owned(), b"bird".to_vec())]);
}

#[test]
fn invalid_lines_are_logged_and_skipped() {
    let bench = Bench::new("max_line_bytes = 30");
    bench.fifo.serve();
    let mut writer = bench.writer();
    writer.write_all(b"wrong-without-space\nwrong-long ").unwrap();
    writer.write_all(&[b'x'; 40_000]).unwrap();
    writer.write_all(b"\nwrong-method :m x\nwrong-bytes \xFF\ngood one\n").unwrap();
    assert_eq!(bench.requests(1), [(Op::Message, "good".to_owned(), b"one".to_vec())]);
    let log = logged();
    for (line, why) in [
        ("wrong-without-space", "no space and text after the target"),
        ("wrong-long ", "line exceeds 30 bytes (max_line_bytes)"),
        ("wrong-method :m x", "parameter \"x\" without ="),
        ("wrong-bytes ", "not UTF-8"),
    ] {
        let logged = log.lines().find(|l| l.contains(line)).unwrap_or_else(|| panic!("{line}: {log}"));
        assert!(logged.contains(why) && logged.contains("WARN"), "{logged}");
    }
}

#[test]
fn a_target_that_is_not_registered_is_logged() {
    let bench = Bench::new("");
    bench.fake.answer_with(Some(Code::NotRegistered));
    bench.fifo.serve();
    bench.writer().write_all(b"nobody-there hello\nnobody-else hello\n").unwrap();
    bench.requests(2);
    // logged before the second one was dispatched
    let log = logged();
    let logged = log.lines().find(|line| line.contains("nobody-there")).unwrap();
    assert!(logged.contains("not registered") && logged.contains("WARN"), "{logged}");
}

#[test]
fn many_lines_are_sent_completely_and_in_order() {
    let bench = Bench::new("");
    bench.fifo.serve();
    let mut writer = bench.writer();
    let text: String = (0..20_000).map(|n| format!("to {n}\n")).collect();
    writer.write_all(text.as_bytes()).unwrap();
    let requests = bench.requests(20_000);
    for (n, (_, _, payload)) in requests.iter().enumerate() {
        assert_eq!(payload, n.to_string().as_bytes());
    }
}

#[test]
fn a_fifo_that_another_process_reads_is_refused_and_not_removed() {
    let bench = Bench::new("");
    let other = bench.fake.create::<Fifo>("other", &format!("path = '{}'", bench.path.display())).unwrap();
    let error = other.start().unwrap_err();
    assert_eq!(error.key, "path");
    assert_eq!(error.message, format!("another process reads {}", bench.path.display()));
    other.stop(LONG);
    drop(other);
    assert!(bench.path.exists());
    drop(bench.fifo); // never served nor stopped
    assert!(!bench.path.exists());
}

#[test]
fn errors_in_settings_name_the_key() {
    let fake = FakeHost::new();
    let error = fake.create::<Fifo>("lines", "path = '/x'\nmode = 'rw'").err().unwrap();
    assert_eq!(
        error.to_string(),
        "mode: \"rw\" is not a file mode; expected octal up to \"0777\", such as \"0620\""
    );
    let error = fake.create::<Fifo>("lines", "path = '/x'\npaht = 'rw'").err().unwrap();
    assert_eq!(error.key, "paht");
}

#[test]
fn an_unfinished_line_is_not_joined_to_another_writers() {
    let bench = Bench::new("");
    bench.fifo.serve();
    for n in 0..20 {
        let cut = format!("cut-off {n:02} lamp o");
        bench.writer().write_all(cut.as_bytes()).unwrap();
        // the plugin has detected the close of its writer
        assert!(bench.fake.wait_until(LONG, |_| logged().contains(&cut)), "{}", logged());
        bench.writer().write_all(format!("lamp.hall off {n}\n").as_bytes()).unwrap();
    }
    let requests = bench.requests(20);
    for (n, request) in requests.iter().enumerate() {
        assert_eq!(*request, (Op::Message, "lamp.hall".to_owned(), format!("off {n}").into_bytes()));
    }
    let log = logged();
    let logged = log.lines().find(|line| line.contains("cut-off 00")).unwrap();
    assert!(
        logged.contains("WARN") && logged.contains("its writer closed before the end of the line"),
        "{logged}"
    );
}

#[test]
fn a_writer_can_write_a_line_in_parts() {
    let bench = Bench::new("");
    bench.fifo.serve();
    let mut writer = bench.writer();
    for part in ["lamp", ".hall o", "ff\nlamp.stairs", " on\n"] {
        writer.write_all(part.as_bytes()).unwrap();
        std::thread::yield_now();
    }
    let lamps = [("lamp.hall", &b"off"[..]), ("lamp.stairs", b"on")];
    let lamps = lamps.map(|(target, payload)| (Op::Message, target.to_owned(), payload.to_vec()));
    assert_eq!(bench.requests(2), lamps);
}

#[test]
fn lines_of_concurrent_writers_are_not_mixed() {
    let bench = Bench::new("");
    bench.fifo.serve();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let mut fifo = bench.writer();
            scope.spawn(move || {
                for n in 0..500 {
                    // one write of less than PIPE_BUF each
                    fifo.write_all(format!("w{writer} {n} {}\n", "x".repeat(writer * 300)).as_bytes())
                        .unwrap();
                }
            });
        }
    });
    let requests = bench.requests(2000);
    for writer in 0..4usize {
        let of_one: Vec<_> =
            requests.iter().filter(|(_, target, _)| *target == format!("w{writer}")).collect();
        for (n, (_, _, payload)) in of_one.iter().enumerate() {
            assert_eq!(*payload, format!("{n} {}", "x".repeat(writer * 300)).into_bytes());
        }
        assert_eq!(of_one.len(), 500);
    }
}

#[test]
fn a_fifo_with_admin_has_an_administrative_sender_and_its_mode() {
    let bench = Bench::new("admin = true\nmode = '0622'");
    assert_eq!(bench.fake.system_senders(), [(".fifo".to_owned(), true)]);
    assert_eq!(fs::metadata(&bench.path).unwrap().permissions().mode() & 0o777, 0o622);
    let log = logged();
    assert!(log.contains("every user of this machine can write to the fifo"), "{log}");
}

#[test]
fn only_an_administrator_publishes_to_the_topics_of_the_broker() {
    for (more, expected) in [("", 1), ("admin = true", 3)] {
        let bench = Bench::new(more);
        bench.fifo.serve();
        bench.writer().write_all(b"=.broker/warn forged\n=.broker forged\n=.brokers/x mine\n").unwrap();
        let requests = bench.requests(expected);
        assert_eq!(requests.last().unwrap().1, ".brokers/x");
        assert_eq!(requests.len(), expected);
    }
    assert!(logged().contains("topics of the broker need `admin = true`"));
}

#[test]
fn a_removed_fifo_is_created_again_by_a_reload() {
    let bench = Bench::new("");
    bench.fifo.serve();
    bench.fifo.refresh().unwrap();
    bench.writer().write_all(b"before x\n").unwrap();
    bench.requests(1);
    // as a cleanup job does, or a renamed folder
    fs::remove_file(&bench.path).unwrap();
    bench.fifo.refresh().unwrap();
    assert!(fs::metadata(&bench.path).unwrap().file_type().is_fifo());
    bench.writer().write_all(b"after x\n").unwrap();
    assert_eq!(bench.requests(2)[1].1, "after");
    // another file is not removed, and is an error
    fs::remove_file(&bench.path).unwrap();
    fs::write(&bench.path, "data").unwrap();
    assert!(bench.fifo.refresh().unwrap_err().to_string().contains("exists and is not a FIFO"));
    fs::remove_file(&bench.path).unwrap();
    bench.fifo.refresh().unwrap();
    bench.writer().write_all(b"again x\n").unwrap();
    assert_eq!(bench.requests(3)[2].1, "again");
    bench.fifo.stop(LONG);
    assert!(!bench.path.exists());
    bench.fifo.refresh().unwrap();
    assert!(!bench.path.exists(), "no FIFO after the stop");
}
