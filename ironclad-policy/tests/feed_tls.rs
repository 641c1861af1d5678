//! HTTPS is verified: by given roots, for the name in the request.

mod feed_lab;

use std::sync::Arc;

use feed_lab::server::{Connection, Server};
use feed_lab::{Lab, list};
use ironclad_policy::feed::{FetchError, Fetcher, RootsError, Why};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

/// A root, and what a server of it needs to be `names`.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        // Each has a name of its own.
        let name = format!("root {:?}", std::time::Instant::now());
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn server(&self, change: impl FnOnce(&mut CertificateParams)) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        config(certificate.der().clone(), &key)
    }
}

fn config(
    certificate: rustls::pki_types::CertificateDer<'static>,
    key: &KeyPair,
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    Arc::new(config)
}

/// A lab whose server answers with a list.
fn lab(config: Arc<ServerConfig>, fetcher: Fetcher) -> Lab {
    let server = Server::start(Some(config), |request, client: &mut Connection| {
        match request.path.as_str() {
            "/plain" => client.answer(302, &["Location: http://127.0.0.1:1/list"], ""),
            "/cut" => {
                client.send("HTTP/1.1 200 x\r\nContent-Length: 18\r\n\r\n10.0.0.1\n")?;
                client.cut();
                Ok(())
            }
            "/cut-unannounced" => {
                client.send("HTTP/1.1 200 x\r\n\r\n10.0.0.1\n")?;
                client.cut();
                Ok(())
            }
            _ => client.answer(200, &[], list(3)),
        }
    });
    Lab::with(server, fetcher)
}

#[track_caller]
fn not_verified(lab: &Lab, expected: &str) {
    let why = lab.kept(&lab.spec("/list"), 0);
    assert!(matches!(why, Why::Fetch(FetchError::Tls { .. })), "{why:?}");
    assert!(why.to_string().contains(expected), "{why}");
    assert!(lab.server.requests().is_empty());
}

#[test]
fn a_server_of_a_root_that_is_given_is_verified() {
    let authority = Authority::new();
    let fetcher = Fetcher::with_roots(authority.pem().as_bytes()).unwrap();
    let lab = lab(authority.server(|_| ()), fetcher);
    // Without plain HTTP being allowed.
    let spec = |path| lab.spec(path).danger_allow_http(false);
    assert_eq!(lab.updated(&spec("/list"), 0).2, 3);
    let why = lab.kept(&spec("/plain"), 1);
    assert!(why.to_string().ends_with("127.0.0.1:1: from https to plain http"), "{why}");
    // Not even where it is.
    lab.kept(&lab.spec("/plain"), 2);
    // Who cuts a connection off shortens nothing.
    let why = lab.kept(&spec("/cut"), 3);
    assert!(matches!(why, Why::Fetch(FetchError::Truncated { .. })), "{why:?}");
    let why = lab.kept(&spec("/cut-unannounced"), 6);
    assert!(matches!(why, Why::Fetch(FetchError::NoEnd { .. })), "{why:?}");
}

#[test]
fn other_servers_are_refused_before_the_first_request() {
    let authority = Authority::new();
    let trusting = || Fetcher::with_roots(authority.pem().as_bytes()).unwrap();
    // One that signed itself, and one of an unknown authority.
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let own = params.self_signed(&key).unwrap().der().clone();
    not_verified(&lab(config(own.clone(), &key), trusting()), "UnknownIssuer");
    not_verified(&lab(config(own, &key), Fetcher::new()), "UnknownIssuer");
    not_verified(&lab(Authority::new().server(|_| ()), trusting()), "UnknownIssuer");
    not_verified(&lab(authority.server(|_| ()), Fetcher::new()), "UnknownIssuer");
    // One of ours, but another's, or of another time.
    let other = authority.server(|params| {
        *params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    });
    not_verified(&lab(other, trusting()), "not valid for name");
    let expired = authority.server(|params| params.not_after = date_time_ymd(2020, 1, 1));
    not_verified(&lab(expired, trusting()), "expired");
    let early = authority.server(|params| params.not_before = date_time_ymd(4000, 1, 1));
    not_verified(&lab(early, trusting()), "not valid yet");
}

#[test]
fn a_server_without_tls_is_refused() {
    let lab = Lab::new(|_, client| client.answer(200, &[], list(3)));
    let spec = lab.spec("/list");
    let url = spec.source().to_string().replace("http:", "https:");
    let spec = ironclad_policy::feed::FeedSpec::new("f", &url).unwrap();
    let spec = spec.timeout(std::time::Duration::from_millis(500));
    let why = lab.kept(&spec, 0);
    assert!(
        matches!(why, Why::Fetch(FetchError::Tls { .. } | FetchError::TimedOut { .. })),
        "{why:?}"
    );
}

#[test]
fn roots_are_certificates_in_pem() {
    assert!(matches!(Fetcher::with_roots(b""), Err(RootsError::None)));
    assert!(matches!(Fetcher::with_roots(b"roots"), Err(RootsError::None)));
    let key = KeyPair::generate().unwrap().serialize_pem();
    assert!(matches!(Fetcher::with_roots(key.as_bytes()), Err(RootsError::None)));
    let cut = Authority::new().pem().replace("-----END", "");
    assert!(matches!(Fetcher::with_roots(cut.as_bytes()), Err(RootsError::Malformed { .. })));
}
