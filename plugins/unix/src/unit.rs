//! The systemd unit of the process behind a connection, for access rules. Reads small kernel files and
//! nothing else.
//!
//! A unit is determined as systemd does: it is the first part of the control group's path below the slices.
//! The parts after it are created by the unit itself: a user manager or container can name a group
//! `plc.service`.

use elbus_plugin_api::{Credentials, os::peer_process};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use std::{
    fs::File,
    io::Read,
    os::fd::{BorrowedFd, OwnedFd},
};

/// Maximum number of bytes read of such a file.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Maximum length of a unit's name.
const MAX_NAME_BYTES: usize = 255;
/// Suffixes of units that have processes.
const SUFFIXES: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];
const SLICE: &str = ".slice";
/// The slice of users, with their sessions and managers.
const USERS: &str = "user.slice";

/// Returns the unit of the connected process; `None` if it has none or that is uncertain.
pub(crate) fn unit_of(socket: BorrowedFd<'_>, credentials: &Credentials) -> Option<String> {
    let pid = credentials.pid;
    if pid <= 0 {
        return None; // in another pid namespace
    }
    let process = match peer_process(socket) {
        Ok(Some(process)) => process,
        // another process may have the id now, but it must at least belong to the same user
        Ok(None) => open_process(pid).filter(|_| is_of_user(pid, credentials.uid))?,
        Err(_) => return None,
    };
    let groups = read(pid, "cgroup")?;
    // the process still exists, so the file that was read is its own
    if is_closed(&process) {
        return None;
    }
    unit_in(&groups)
}

fn open_process(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

fn is_of_user(pid: i32, uid: u32) -> bool {
    let is_of_user = |status: String| {
        let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        Some(uids.split_whitespace().any(|text| text.parse() == Ok(uid)))
    };
    read(pid, "status").and_then(is_of_user).unwrap_or(false)
}

fn read(pid: i32, file: &str) -> Option<String> {
    let mut text = String::new();
    File::open(format!("/proc/{pid}/{file}")).ok()?.take(MAX_FILE_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Returns whether a process has ended or its state is unknown.
fn is_closed(process: &OwnedFd) -> bool {
    let mut ended = [PollFd::new(process, PollFlags::IN)];
    poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) != Ok(0)
}

/// Parses lines `number:controllers:/path`. If systemd has a hierarchy besides the unified one, both must
/// agree.
fn unit_in(groups: &str) -> Option<String> {
    let path_of = |wanted: &str| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            (controllers == wanted).then_some(path)
        })
    };
    match (path_of("name=systemd"), path_of("")) {
        (Some(own), Some(unified)) if unified != "/" && unified != own => None,
        (Some(path), _) | (None, Some(path)) => unit_of_path(path),
        (None, None) => None,
    }
}

fn unit_of_path(path: &str) -> Option<String> {
    let mut parts = path.strip_prefix('/')?.split('/').map(unescaped).peekable();
    if parts.peek() == Some(&USERS) {
        return None;
    }
    let unit = parts.find(|part| !is_unit(part, &[SLICE]))?;
    is_unit(unit, &SUFFIXES).then(|| unit.to_owned())
}

/// Removes the `_` that systemd adds before names that look like kernel files.
fn unescaped(part: &str) -> &str {
    part.strip_prefix('_').unwrap_or(part)
}

/// Returns whether this is the name of a unit of these kinds.
fn is_unit(name: &str, suffixes: &[&str]) -> bool {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let stem = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
    name.len() <= MAX_NAME_BYTES
        && stem.is_some_and(|stem| !stem.is_empty() && !stem.starts_with('@'))
        && name.chars().all(is_of_name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        os::{fd::AsFd, unix::net::UnixStream},
        process::Command,
    };

    #[test]
    fn the_unit_is_the_first_below_the_slices() {
        for (groups, unit) in [
            ("0::/system.slice/plc.service\n", Some("plc.service")),
            ("0::/system.slice/plc.service/sub\n", Some("plc.service")),
            ("0::/system.slice/system-plc.slice/plc@1.service\n", Some("plc@1.service")),
            ("0::/plant.slice/plant-line.slice/plc.service\n", Some("plc.service")),
            ("0::/system.slice/run-u7.scope\n", Some("run-u7.scope")),
            ("0::/system.slice/_cgroup.service\n", Some("cgroup.service")),
            ("0::/system.slice/a\\x2db.service", Some("a\\x2db.service")),
            ("0::/init.scope\n", Some("init.scope")),
            ("12:cpu:/x.service\n1:name=systemd:/y.service\n0::/\n", Some("y.service")),
            ("1:name=systemd:/system.slice/y.service\n0::/system.slice/y.service\n", Some("y.service")),
            // groups that a unit creates below its own are not units
            ("0::/system.slice/docker.service/plc.service\n", Some("docker.service")),
            ("0::/system.slice/docker.service/system.slice/plc.service\n", Some("docker.service")),
            ("0::/machine.slice/box.scope/system.slice/plc.service\n", Some("box.scope")),
            // users are not services
            ("0::/user.slice/user-1.slice/user@1.service/plc.service\n", None),
            ("0::/user.slice/user-1.slice/user@1.service/app.slice/plc.service\n", None),
            ("0::/user.slice/user-1.slice/session-3.scope\n", None),
            ("0::/user.slice/plc.service\n", None),
            ("0::/_user.slice/plc.service\n", None),
            ("1:name=systemd:/user.slice/user-1.slice/x.scope\n0::/system.slice/plc.service\n", None),
            ("1:name=systemd:/system.slice/plc.service\n0::/user.slice/x.scope\n", None),
            // neither are groups that systemd did not create
            ("0::/init\n", None),
            ("0::/lxc/box/system.slice/plc.service\n", None),
            ("0::/../plc.service\n", None),
            ("0::/system.slice/../plc.service\n", None),
            ("0::/system.slice/.service\n", None),
            ("0::/system.slice/@x.service\n", None),
            ("0::/system.slice/p\u{142}c.service\n", None),
            ("0::/system.slice\n", None),
            ("0::system.slice/plc.service\n", None),
            ("0::/\n", None),
            ("0::/plc.service:/x", None),
            ("", None),
        ] {
            assert_eq!(unit_in(groups).as_deref(), unit, "{groups}");
        }
        let long = format!("0::/system.slice/{}.service", "x".repeat(300));
        assert_eq!(unit_in(&long), None);
    }

    #[test]
    fn the_unit_of_an_ended_process_is_unknown() {
        let (one, _other) = UnixStream::pair().unwrap();
        let own = Credentials { pid: std::process::id().cast_signed(), uid: 0, gid: 0 };
        let expected = unit_in(&read(own.pid, "cgroup").unwrap());
        assert_eq!(unit_of(one.as_fd(), &own), expected);
        assert_eq!(unit_of(one.as_fd(), &Credentials { pid: 0, ..own }), None);
        assert_eq!(unit_of(one.as_fd(), &Credentials { pid: i32::MAX, ..own }), None);

        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = child.id().cast_signed();
        let process = open_process(pid).unwrap();
        assert!(!is_closed(&process));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_closed(&process));
    }

    #[test]
    fn a_process_id_reused_by_another_user_has_no_unit() {
        let own = rustix::process::getuid().as_raw();
        let pid = std::process::id().cast_signed();
        assert!(is_of_user(pid, own) && !is_of_user(pid, own + 12_345) && !is_of_user(i32::MAX, own));
    }
}
