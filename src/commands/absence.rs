//! Advice for the case that nothing was found: the likely reason, and what to do.

use s4::client::Client;
use s4::error::{Error, ErrorKind};
use s4::key::{Dir, Key, Prefix};
use s4::protocol::Stat;

/// Adds to the error what may have been meant by `path`: `bucket/dir/`, or a prefix of a name.
pub async fn nothing_found(client: &Client, path: &str, error: Error) -> Error {
    match advice(client, path.trim_end_matches('/'), path.ends_with('/')).await {
        Some(advice) if error.kind() == ErrorKind::NotFound => error.with_more(&advice),
        _ => error,
    }
}

async fn advice(client: &Client, path: &str, is_dir: bool) -> Option<String> {
    if let Ok(key) = Key::parse(path)
        && let Ok(Stat::Key(_)) = client.look_up(&Dir::try_from(path.to_owned()).ok()?).await
    {
        let shown = if is_dir { format!("{key} is a key, without a / at its end") } else { format!("{key} is a key") };
        return Some(format!("{shown}, and its directory is s4://{}/", key.parent()));
    }
    let mut buckets = client.list(&Prefix::parse_url("s4://").ok()?, false).await.ok()?;
    match buckets.next().await {
        Ok(None) => Some("the cluster has no key yet: 's4 cp -r DIR s4://bucket/' copies some in".to_owned()),
        Ok(Some(_)) if !path.is_empty() => Some("'s4 ls' lists the buckets".to_owned()),
        _ => None,
    }
}
