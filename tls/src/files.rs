//! Reads certificates and keys from PEM files. Owns their maximum length and the error messages about their
//! contents.

use rustix::fs::OFlags;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
};
use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};
use x509_parser::{parse_x509_certificate, time::ASN1Time};

/// Maximum length of a file, in bytes; a system's complete set of roots is a quarter of it.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The purpose of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The certificate of this side, followed by the intermediate certificates.
    Certificate,
    /// The private key of that certificate.
    Key,
    /// The root certificates that peers' certificates are verified against.
    Roots,
}

/// A certificate or key file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    /// The purpose of the file.
    pub part: Part,
    /// The file, and what is wrong with it.
    pub message: String,
}

impl FileError {
    pub(crate) fn new(part: Part, message: String) -> Self {
        FileError { part, message }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for FileError {}

/// Returns all certificates in a file; at least one.
pub(crate) fn certificates(part: Part, path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let text = read(part, path)?;
    let bad = |error| FileError::new(part, format!("{path:?} is not a PEM file: {error}"));
    let all = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>().map_err(bad)?;
    if all.is_empty() {
        return Err(FileError::new(part, format!("{path:?} contains no certificate in PEM form")));
    }
    Ok(all)
}

/// Returns a warning for each certificate that has expired or is not valid yet.
pub(crate) fn out_of_time(path: &Path, chain: &[CertificateDer<'_>]) -> Vec<FileError> {
    let now = UnixTime::now().as_secs();
    let seconds = |time: ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let parsed = chain.iter().filter_map(|certificate| parse_x509_certificate(certificate).ok());
    let mut warnings = vec![];
    for (_, certificate) in parsed {
        let (validity, subject) = (certificate.validity(), certificate.subject());
        let what = if now > seconds(validity.not_after) {
            format!("has expired: it was valid until {}", validity.not_after)
        } else if now < seconds(validity.not_before) {
            format!("is not valid yet: it will be valid from {}", validity.not_before)
        } else {
            continue;
        };
        let message = format!("the certificate of {:?} in {path:?} {what}", subject.to_string());
        warnings.push(FileError::new(Part::Certificate, message));
    }
    warnings
}

/// Returns the first private key in a file, and a warning if other users can read the file.
pub(crate) fn key(path: &Path) -> Result<(PrivateKeyDer<'static>, Option<FileError>), FileError> {
    let (text, mode) = read_with_mode(Part::Key, path)?;
    let readable = match mode & 0o077 {
        0 => None,
        bits if bits & 0o007 != 0 => Some("all users"),
        _ => Some("its group"),
    };
    let warning = readable.map(|by| {
        let message = format!("{path:?} is accessible to {by} (mode {:04o}); set mode 0600", mode & 0o7777);
        FileError::new(Part::Key, message)
    });
    let key = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| FileError::new(Part::Key, format!("{path:?} contains no private key in PEM form")))?;
    Ok((key, warning))
}

/// Returns the certificates in a file as trusted roots.
pub(crate) fn roots(path: &Path) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(Part::Roots, path)? {
        let bad =
            |error| FileError::new(Part::Roots, format!("{path:?} contains an invalid certificate: {error}"));
        roots.add(certificate).map_err(bad)?;
    }
    Ok(roots)
}

/// Returns the error for a certificate and a key that cannot be used together.
pub(crate) fn misfit(certificate: &Path, key: &Path, error: &rustls::Error) -> FileError {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            FileError::new(Part::Key, format!("{key:?} is not the key of the certificate in {certificate:?}"))
        }
        rustls::Error::InvalidCertificate(_) => FileError::new(
            Part::Certificate,
            format!("{certificate:?} contains an invalid certificate: {error}"),
        ),
        _ => FileError::new(Part::Key, format!("{key:?} cannot be used: {error}")),
    }
}

fn read(part: Part, path: &Path) -> Result<Vec<u8>, FileError> {
    read_with_mode(part, path).map(|(text, _)| text)
}

/// Returns the contents of a file, and the mode of the file that was read.
fn read_with_mode(part: Part, path: &Path) -> Result<(Vec<u8>, u32), FileError> {
    let refuse = |error: io::Error| FileError::new(part, format!("cannot read {path:?}: {error}"));
    // opening a FIFO would block until a writer opens it
    let nonblock = OFlags::NONBLOCK.bits() as i32;
    let file = File::options().read(true).custom_flags(nonblock).open(path).map_err(refuse)?;
    let metadata = file.metadata().map_err(refuse)?;
    if !metadata.is_file() {
        return Err(FileError::new(part, format!("cannot read {path:?}: it must be a regular file")));
    }
    let mode = metadata.permissions().mode();
    let mut text = vec![];
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).map_err(refuse)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(FileError::new(part, format!("{path:?} is longer than {MAX_FILE_BYTES} bytes")));
    }
    Ok((text, mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn only_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let (fifo, link) = (dir.path().join("fifo"), dir.path().join("link"));
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        std::os::unix::fs::symlink("fifo", &link).unwrap();
        for path in [&fifo, &link, dir.path(), Path::new("/dev/zero")] {
            let errors = [
                certificates(Part::Certificate, path).unwrap_err(),
                key(path).unwrap_err(),
                roots(path).unwrap_err(),
            ];
            for error in errors {
                assert!(error.message.ends_with("it must be a regular file"), "{error}");
            }
        }
    }
}
