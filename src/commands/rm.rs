//! `s4 rm`

use crate::cli::RmArgs;
use s4::client::Client;
use s4::error::{Error, ExitStatus, Result};
use s4::key::{Key, Prefix};

pub async fn run(client: &Client, args: RmArgs) -> Result<ExitStatus> {
    match args.recursive {
        true => remove_all(client, &Prefix::parse_url(&args.prefix)?).await,
        false => client.delete(&Key::parse_url(&args.prefix)?).await.map(|()| ExitStatus::Done),
    }
}

async fn remove_all(client: &Client, prefix: &Prefix) -> Result<ExitStatus> {
    if prefix.as_str().is_empty() {
        return Err(Error::usage("s4:// begins every key; name at least the beginning of a bucket"));
    }
    let answers = client
        .on_every_node(|client, node| {
            let prefix = prefix.clone();
            async move { client.delete_prefix(node, &prefix).await }
        })
        .await;
    // Nothing found is success: scripts begin so.
    client.all_or_blame(answers).await.map(|_| ExitStatus::Done)
}
