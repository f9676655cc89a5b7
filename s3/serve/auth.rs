//! The secret access key: the secret of the cluster. The access key id is any text, since s4 has no users.

use s3s::S3Result;
use s3s::auth::{S3Auth, SecretKey};
use s4::client::Secret;

/// The secret access key of a cluster without a secret. A signature is required nevertheless: a web page cannot make a
/// browser send one that it does not compute itself.
const NO_SECRET: &str = "s4";

pub struct AnyId(SecretKey);

impl AnyId {
    pub fn new(secret: Option<&Secret>) -> Self {
        Self(SecretKey::from(secret.map_or(NO_SECRET, Secret::as_text)))
    }
}

#[async_trait::async_trait]
impl S3Auth for AnyId {
    async fn get_secret_key(&self, _access_key: &str) -> S3Result<SecretKey> {
        Ok(self.0.clone())
    }
}
