//! `s4 eval`

use super::console::unbuffered;
use super::files;
use crate::cli::EvalArgs;
use s4::client::Client;
use s4::error::{Error, ExitStatus, Result};
use s4::key::{self, Key};
use s4::protocol::CommandText;
use s4::wire::CommandEnd;
use std::os::unix::ffi::OsStrExt;

pub async fn run(client: &Client, args: EvalArgs) -> Result<ExitStatus> {
    if !key::is_url(&args.key) && key::is_url(&args.cmd.to_string_lossy()) {
        let (cmd, key) = (args.key.escape_debug(), args.cmd.to_string_lossy());
        return Err(Error::usage(format!("CMD comes last: s4 eval {} '{cmd}'", key.escape_debug())));
    }
    let key = Key::parse_url(&args.key)?;
    let cmd = CommandText::new(args.cmd)?.as_os_str().as_bytes().to_vec();
    let node = client.cluster().node_of(&key);
    let files = files::send_to(client, node, files::describe(&args.files).await?).await?;
    let (stdout, stderr) = (unbuffered(std::io::stdout())?, unbuffered(std::io::stderr())?);
    let name = client.cluster().name(node);
    match client.eval(&key, cmd, files, stdout, stderr).await? {
        CommandEnd::Exit(code) => Ok(ExitStatus::Command(code as u8)),
        CommandEnd::Signal(signal) => {
            eprintln!("s4: {name}: {key}: the command was ended by signal {signal}");
            Ok(ExitStatus::Command(128 | signal as u8))
        }
        CommandEnd::Error(error) => Err(error.by(name)),
    }
}
