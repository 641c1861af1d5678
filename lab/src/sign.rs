//! Keys and signatures in the format of minisign(1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2b512, Digest as _};
use ed25519_dalek::{Signer as _, SigningKey};

/// A key pair with a public secret key, for tests.
#[derive(Debug)]
pub struct KeyPair {
    id: [u8; 8],
    secret: SigningKey,
}

impl KeyPair {
    /// Each seed has one.
    pub fn new(seed: u8) -> Self {
        Self { id: [seed; 8], secret: SigningKey::from_bytes(&[seed; 32]) }
    }

    /// The second line of a file of minisign's with the public key.
    pub fn public(&self) -> String {
        STANDARD.encode([&b"Ed"[..], &self.id, self.secret.verifying_key().as_bytes()].concat())
    }

    /// A file of minisign's with a signature over these bytes.
    pub fn sign(&self, bytes: &[u8]) -> String {
        const COMMENT: &str = "of a test";
        let signature = self.secret.sign(&Blake2b512::digest(bytes)).to_bytes();
        let global = self.secret.sign(&[&signature[..], COMMENT.as_bytes()].concat()).to_bytes();
        let line = STANDARD.encode([&b"ED"[..], &self.id, &signature].concat());
        let global = STANDARD.encode(global);
        format!("untrusted comment: x\n{line}\ntrusted comment: {COMMENT}\n{global}\n")
    }
}
