//! Certificates and keys in PEM files. Owns reading them, their greatest length, and the words for what is wrong with them.

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
};

/// No file of certificates is longer than this; all roots of a system are a quarter of it.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Our own certificate, with those between it and the root.
    Certificate,
    /// The private key of our own certificate.
    Key,
    /// The certificates that those of peers must go back to.
    Roots,
}

/// A file that is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    /// What it was to be for.
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

/// All certificates of a file; at least one.
pub(crate) fn certificates(part: Part, path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let text = read(part, path)?;
    let bad = |error| FileError::new(part, format!("{path:?} is no PEM file: {error}"));
    let all = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>().map_err(bad)?;
    if all.is_empty() {
        return Err(FileError::new(part, format!("{path:?} holds no certificate in PEM form")));
    }
    Ok(all)
}

/// The first private key of a file.
pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let text = read(Part::Key, path)?;
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| FileError::new(Part::Key, format!("{path:?} holds no private key in PEM form")))
}

/// The certificates of a file as those that others must go back to.
pub(crate) fn roots(path: &Path) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(Part::Roots, path)? {
        let bad =
            |error| FileError::new(Part::Roots, format!("{path:?} holds a broken certificate: {error}"));
        roots.add(certificate).map_err(bad)?;
    }
    Ok(roots)
}

/// Why a certificate and a key cannot be used together.
pub(crate) fn misfit(certificate: &Path, key: &Path, error: &rustls::Error) -> FileError {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            FileError::new(Part::Key, format!("{key:?} is not the key of the certificate in {certificate:?}"))
        }
        rustls::Error::InvalidCertificate(_) => {
            FileError::new(Part::Certificate, format!("{certificate:?} holds a broken certificate: {error}"))
        }
        _ => FileError::new(Part::Key, format!("{key:?} cannot be used: {error}")),
    }
}

fn read(part: Part, path: &Path) -> Result<Vec<u8>, FileError> {
    let refuse = |error: io::Error| FileError::new(part, format!("cannot read {path:?}: {error}"));
    let mut text = vec![];
    File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text)).map_err(refuse)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(FileError::new(part, format!("{path:?} is longer than {MAX_FILE_BYTES} bytes")));
    }
    Ok(text)
}
