//! `s4 config`

use crate::cli::ConfigArgs;
use s4::client::Client;
use s4::error::{Error, ExitStatus, Result};
use std::io::Write;

pub fn run(client: &Client, args: &ConfigArgs) -> Result<ExitStatus> {
    let cluster = client.cluster();
    let text: String = match args.digest {
        true => format!("{}\n", cluster.digest()),
        false => cluster.ids().map(|node| format!("{node} {}\n", cluster.address(node))).collect(),
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| Error::io("stdout", &e))?;
    Ok(ExitStatus::Done)
}
