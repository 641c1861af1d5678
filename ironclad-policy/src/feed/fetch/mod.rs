//! Refreshing feeds.

mod body;
mod error;
mod file;
mod http;
mod outcome;
mod refresh;

use std::fmt;

use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

pub use error::FetchError;
pub use outcome::{Outcome, Why};

/// Fetches feeds: over HTTPS, from files, and over plain HTTP where a feed allows it.
///
/// Servers are verified against the roots of Mozilla's programme as of this build, or against those
/// that are given. Neither certificates of this host nor proxies from the environment are looked
/// at. Connections are not kept.
pub struct Fetcher {
    agent: Agent,
}

/// Certificates cannot be used as roots.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootsError {
    /// The text has none.
    #[error("no certificate in the text: expected PEM, `-----BEGIN CERTIFICATE-----`")]
    None,
    /// The text is no PEM.
    #[error("the text is no PEM: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
}

impl Default for Fetcher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").finish_non_exhaustive()
    }
}

impl Fetcher {
    /// Trusts the roots of Mozilla's programme as of this build.
    pub fn new() -> Self {
        Self::trusting(RootCerts::WebPki)
    }

    /// Trusts the certificates in `pem`, and no others.
    ///
    /// # Errors
    /// [`RootsError`] where there is none.
    pub fn with_roots(pem: &[u8]) -> Result<Self, RootsError> {
        let mut roots: Vec<Certificate<'static>> = Vec::new();
        for item in parse_pem(pem) {
            match item {
                Ok(PemItem::Certificate(certificate)) => roots.push(certificate),
                Ok(_) => {}
                Err(error) => return Err(RootsError::Malformed { what: error.to_string() }),
            }
        }
        match roots.is_empty() {
            true => Err(RootsError::None),
            false => Ok(Self::trusting(RootCerts::new_with_certs(&roots))),
        }
    }

    fn trusting(roots: RootCerts) -> Self {
        let config = Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .proxy(None)
            // Redirects and statuses are judged here.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .max_idle_connections(0)
            .user_agent(concat!("ironclad/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("gzip")
            .build();
        Self { agent: config.new_agent() }
    }
}
