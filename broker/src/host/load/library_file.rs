//! The file of a library: checks which users can change it, reads it once, and makes the sealed copy that is
//! loaded. Owns the bytes between file and memory; does not inspect or run them.

use foldhash::quality::FixedState;
use rustix::fs::{FileType, MemfdFlags, OFlags, SealFlags};
use std::{
    fs::File,
    hash::BuildHasher,
    io::{Read, Write},
    path::Path,
};

/// Maximum length of a file, in bytes.
const MAX_LIBRARY_BYTES: u64 = 512 * 1024 * 1024;

/// A hash that distinguishes the contents of libraries. No protection against the owner of the file, which is
/// trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(usize, u64, u64);

impl Fingerprint {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let hash = |seed: u64| FixedState::with_seed(seed).hash_one(bytes);
        Fingerprint(bytes.len(), hash(0), hash(1))
    }
}

/// Reads a library file. If users other than its owner, root and the broker's user can change the file or its
/// folder, the file is refused if the broker runs as root and `allow_untrusted` is not set; otherwise a
/// warning is logged.
///
/// # Errors
/// Why the file is not read.
pub(super) fn read(path: &Path, allow_untrusted: bool) -> Result<Vec<u8>, String> {
    // NONBLOCK: does not wait for the writer of a FIFO
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
        .map_err(|e| std::io::Error::from(e).to_string())?;
    let stat = rustix::fs::fstat(&fd).map_err(|e| std::io::Error::from(e).to_string())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err("not a regular file".to_owned());
    }
    if let Some(why) = untrusted(&stat, false).or_else(|| untrusted_folder(path)) {
        if rustix::process::geteuid().is_root() && !allow_untrusted {
            return Err(format!(
                "{why}; the broker runs as root and does not load it: change owner or mode, or set \
                 allow_untrusted_plugin_files = true in [broker]"
            ));
        }
        tracing::warn!(path = %path.display(), reason = why, "plugin file can be changed by other users");
    }
    let too_long =
        |bytes: u64| format!("{bytes} bytes exceed the limit of {MAX_LIBRARY_BYTES} for a library");
    let bytes = u64::try_from(stat.st_size).unwrap_or(0);
    if bytes > MAX_LIBRARY_BYTES {
        return Err(too_long(bytes));
    }
    let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0) + 1);
    let mut limited = File::from(fd).take(MAX_LIBRARY_BYTES + 1);
    limited.read_to_end(&mut content).map_err(|error| error.to_string())?;
    if content.len() as u64 > MAX_LIBRARY_BYTES {
        return Err(too_long(content.len() as u64));
    }
    Ok(content)
}

/// Returns which users other than root and the broker's can change a file, or the entries of a folder.
fn untrusted(stat: &rustix::fs::Stat, folder: bool) -> Option<String> {
    let what = if folder { "its folder" } else { "the file" };
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    if stat.st_uid != 0 && stat.st_uid != user.as_raw() {
        return Some(format!("{what} belongs to user {}", stat.st_uid));
    }
    // in a sticky folder, only the owner of an entry can replace it
    if folder && stat.st_mode & 0o1000 != 0 {
        return None;
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o002 != 0 {
        return Some(format!("{what} is writable by everybody (mode {mode:04o})"));
    }
    if mode & 0o020 != 0 && stat.st_gid != 0 && stat.st_gid != group.as_raw() {
        return Some(format!("{what} is writable by group {} (mode {mode:04o})", stat.st_gid));
    }
    None
}

fn untrusted_folder(path: &Path) -> Option<String> {
    let folder = path.canonicalize().ok()?;
    let stat = rustix::fs::stat(folder.parent()?).ok()?;
    untrusted(&stat, true)
}

/// Copies the bytes into a memory file that cannot be changed.
///
/// # Errors
/// No memory or file descriptor is available.
pub(super) fn sealed_copy(path: &Path, bytes: &[u8]) -> std::io::Result<File> {
    let name = path.file_name().unwrap_or_default();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // kernels before 6.3 do not know EXEC and do not need it
    let fd = rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create(name, flags))?;
    let mut file = File::from(fd);
    file.write_all(bytes).map_err(|error| explain_size(error, bytes.len()))?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(file)
}

/// Explains an error by the limit on file sizes, which also applies to memory files.
fn explain_size(error: std::io::Error, length: usize) -> std::io::Error {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    match limit {
        Some(limit) if error.kind() == std::io::ErrorKind::FileTooLarge => std::io::Error::other(format!(
            "file too large: the library has {length} bytes, the limit of this process for files is {limit} \
             bytes (ulimit -f, LimitFSIZE)"
        )),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(mode: u32, uid: u32, gid: u32) -> rustix::fs::Stat {
        let mut stat = rustix::fs::stat("/").unwrap();
        (stat.st_mode, stat.st_uid, stat.st_gid) = (mode, uid, gid);
        stat
    }

    #[test]
    fn a_file_that_other_users_can_change_is_untrusted() {
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        for (mode, uid, gid, why) in [
            (0o755, 0, 0, None),
            (0o775, user, group, None),
            (0o775, 0, 0, None),
            (0o757, user, group, Some("writable by everybody (mode 0757)")),
            (0o775, user, group + 7, Some("writable by group")),
            (0o755, user + 7, group, Some("belongs to user")),
        ] {
            let found = untrusted(&stat(mode, uid, gid), false);
            assert_eq!(found.is_some(), why.is_some(), "{mode:o} {uid} {gid}: {found:?}");
            assert!(found.unwrap_or_default().contains(why.unwrap_or_default()));
        }
        assert_eq!(untrusted(&stat(0o1777, 0, 0), true), None, "sticky");
        assert!(untrusted(&stat(0o0777, 0, 0), true).is_some());
    }
}
