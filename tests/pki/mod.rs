//! Certificates of one test: a certificate that signs itself is its own authority.

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};

/// Somebody who can prove who he is.
pub(crate) struct Identity(CertifiedKey<KeyPair>);

impl Identity {
    pub(crate) fn new(name: &str) -> Self {
        Self(generate_simple_self_signed([name.to_owned()]).unwrap())
    }

    /// The certificate, in PEM.
    pub(crate) fn certificate(&self) -> String {
        self.0.cert.pem()
    }

    /// The private key, in PEM.
    pub(crate) fn key(&self) -> String {
        self.0.signing_key.serialize_pem()
    }
}
