//! Tokens that cases name, signed with keys of this run.
//!
//! `$jwks` in a resource is the key set that verifies them; `$jwks(other)` is one of another key. `$token(name)` in a request is the
//! token of that name.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::KeyPair;
use serde::Deserialize;
use serde_json::{Value, json};

/// A token of a case file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Token {
    /// Its claims.
    pub claims: BTreeMap<String, Value>,
    /// Signed with the other key.
    pub other_key: bool,
    /// Instead of everything else.
    pub text: Option<String>,
}

/// The two keys.
pub struct Keys {
    own: KeyPair,
    other: KeyPair,
}

impl Keys {
    /// New ones.
    ///
    /// # Errors
    /// None can be made.
    pub fn new() -> Result<Self> {
        Ok(Self { own: KeyPair::generate()?, other: KeyPair::generate()? })
    }

    /// Fills in key sets.
    pub fn fill(&self, text: &str) -> String {
        text.replace("$jwks(other)", &key_set(&self.other, "other")).replace("$jwks", &key_set(&self.own, "own"))
    }

    /// Signs the tokens of a file.
    ///
    /// # Errors
    /// A token cannot be signed.
    pub fn sign(&self, tokens: &BTreeMap<String, Token>) -> Result<BTreeMap<String, String>> {
        tokens.iter().map(|(name, token)| Ok((name.clone(), self.token(token).with_context(|| name.clone())?))).collect()
    }

    fn token(&self, token: &Token) -> Result<String> {
        if let Some(text) = &token.text {
            return Ok(text.clone());
        }
        let (key, id) = if token.other_key { (&self.other, "other") } else { (&self.own, "own") };
        let header = Header { kid: Some(id.into()), ..Header::new(Algorithm::ES256) };
        encode(&header, &token.claims, &EncodingKey::from_ec_der(key.serialized_der())).map_err(|error| anyhow!("{error}"))
    }
}

/// The key as a JSON web key set: a point on P-256, uncompressed.
fn key_set(key: &KeyPair, id: &str) -> String {
    use base64::Engine;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let point = key.public_key_raw();
    json!({ "keys": [{
        "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": id,
        "x": encode(&point[1..33]), "y": encode(&point[33..65]),
    }] })
    .to_string()
}
