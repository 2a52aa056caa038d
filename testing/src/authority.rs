//! A certificate authority for tests, whose certificates and keys are files in the test's folder.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType, date_time_ymd,
};
use std::{fs, ops::Range, path::Path};

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes the authority's certificate.
    pub fn write(&self, to: &Path) {
        fs::write(to, self.pem()).unwrap();
    }

    /// Returns the authority's certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes `NAME.pem` and `NAME.key`, for the common name and 127.0.0.1.
    pub fn issue(&self, folder: &Path, file: &str, common_name: &str, more: Vec<SanType>) {
        self.issue_for(folder, file, common_name, more, 1975..4096);
    }

    /// As [`issue`](Self::issue), valid from the beginning of one year to that of another.
    pub fn issue_for(
        &self,
        folder: &Path,
        file: &str,
        common_name: &str,
        more: Vec<SanType>,
        years: Range<i32>,
    ) {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(years.start, 1, 1);
        params.not_after = date_time_ymd(years.end, 1, 1);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = more;
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        fs::write(folder.join(format!("{file}.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}
