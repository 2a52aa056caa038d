//! Where the peer of a client runs, as its transport knows it. Access rules and administration depend on it;
//! the display string `kind` decides nothing.

use abi_stable::StableAbi;

/// Where the peer of a client runs.
///
/// # Examples
/// ```
/// use elbus_plugin_api::Locality;
///
/// assert!(Locality::SameHost.may_administer() && Locality::SameHost.is_subject_to_rules());
/// assert!(!Locality::default().may_administer());
/// ```
#[repr(u8)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Locality {
    /// In the broker's process: exempt from access rules, can administer.
    InProcess,
    /// On the same host, by a UNIX socket, or by loopback with a secret of the broker: can administer.
    SameHost,
    /// Anywhere else, including other clients by loopback. The default, so that a transport that sets
    /// nothing grants nothing.
    #[default]
    Remote,
}

impl Locality {
    /// Returns whether administrative methods are allowed without `remote_admin`.
    pub fn may_administer(self) -> bool {
        self != Locality::Remote
    }

    /// Returns whether access rules apply.
    pub fn is_subject_to_rules(self) -> bool {
        self != Locality::InProcess
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_omitted_locality_grants_nothing() {
        let omitted = Locality::default();
        assert!(!omitted.may_administer() && omitted.is_subject_to_rules());
        assert!(Locality::SameHost.may_administer() && Locality::SameHost.is_subject_to_rules());
        assert!(Locality::InProcess.may_administer() && !Locality::InProcess.is_subject_to_rules());
    }
}
