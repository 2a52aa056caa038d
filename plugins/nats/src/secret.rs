//! Files with secrets: read whole, limited in length, and refused if other users can read or change them.

use rustix::fs::OFlags;
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// The longest secret, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// Permissions that a file with a secret must not have: all of other users, and writing of the group.
const FORBIDDEN_MODE: u32 = 0o027;

/// Returns the bytes of a file with a secret, without line ends at the end. The error names the file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let refuse = |error: io::Error| format!("cannot read {path:?}: {error}");
    // opening a FIFO would block until a writer opens it
    let nonblock = OFlags::NONBLOCK.bits() as i32;
    let file = File::options().read(true).custom_flags(nonblock).open(path).map_err(refuse)?;
    let metadata = file.metadata().map_err(refuse)?;
    if !metadata.is_file() {
        return Err(format!("cannot read {path:?}: it must be a regular file"));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & FORBIDDEN_MODE != 0 {
        return Err(format!("{path:?} is accessible to other users (mode {mode:04o}); set mode 0600"));
    }
    let own = rustix::process::geteuid().as_raw();
    if ![0, own].contains(&metadata.uid()) {
        let uid = metadata.uid();
        return Err(format!("{path:?} belongs to uid {uid}; it must belong to root or to uid {own}"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(refuse)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("{path:?} is longer than {MAX_FILE_BYTES} bytes"));
    }
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    bytes.truncate(end);
    Ok(bytes)
}

/// Returns a secret that is text.
pub(crate) fn read_text(path: &Path) -> Result<String, String> {
    String::from_utf8(read(path)?).map_err(|_| format!("{path:?} is not text in UTF-8"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};

    fn write(folder: &Path, text: &[u8], mode: u32) -> std::path::PathBuf {
        let path = folder.join("secret");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_secret_is_the_file_without_line_ends() {
        let folder = tempfile::tempdir().unwrap();
        for (text, secret) in [(&b"a b \n\r\n"[..], &b"a b "[..]), (b"a\nb", b"a\nb"), (b"\n", b"")] {
            assert_eq!(read(&write(folder.path(), text, 0o640)).unwrap(), secret);
        }
        let error = read_text(&write(folder.path(), b"\xff", 0o600)).unwrap_err();
        assert!(error.ends_with("is not text in UTF-8"), "{error}");
    }

    #[test]
    fn a_file_that_others_can_read_or_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o644, 0o660, 0o602, 0o601] {
            let error = read(&write(folder.path(), b"secret", mode)).unwrap_err();
            assert!(error.ends_with(&format!("(mode {mode:04o}); set mode 0600")), "{error}");
        }
        let error = read(folder.path()).unwrap_err();
        assert!(error.ends_with("it must be a regular file"), "{error}");
        let long = write(folder.path(), &vec![b'x'; MAX_FILE_BYTES as usize + 1], 0o600);
        assert!(read(&long).unwrap_err().ends_with("is longer than 65536 bytes"));
        assert!(read(&folder.path().join("absent")).unwrap_err().starts_with("cannot read "));
    }
}
