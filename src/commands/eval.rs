//! `s4 eval`

use super::console::{print_message, unbuffered};
use super::display::is_terminal;
use super::files;
use super::hints::{Tail, print_hint};
use crate::cli::EvalArgs;
use s4::client::Client;
use s4::error::{Error, ExitStatus, Result};
use s4::key::{self, Key};
use s4::protocol::{CommandText, Runner};
use s4::wire::CommandEnd;
use std::os::unix::ffi::OsStrExt;

pub async fn run(client: &Client, args: EvalArgs) -> Result<ExitStatus> {
    if !key::is_url(&args.key) && key::is_url(&args.cmd.to_string_lossy()) {
        let (cmd, key) = (args.key.escape_debug(), args.cmd.to_string_lossy());
        return Err(Error::usage(format!("CMD comes last: s4 eval {} '{cmd}'", key.escape_debug())));
    }
    let key = Key::parse_url(&args.key)?;
    let cmd = CommandText::new(args.cmd)?;
    let node = client.cluster().node_of(&key);
    let files = files::send_to(client, node, files::describe(&args.files).await?).await?;
    let (stdout, stderr) = (unbuffered(std::io::stdout())?, Tail::of_stderr()?);
    let name = client.cluster().name(node);
    let bytes = cmd.as_os_str().as_bytes().to_vec();
    let status = match client.eval(&key, bytes, files.clone(), stdout, stderr.clone()).await? {
        CommandEnd::Exit(code) => ExitStatus::Command(code as u8),
        CommandEnd::Signal(signal) => {
            print_message(format_args!("{name}: {key}: the command was ended by signal {signal}"));
            ExitStatus::Command(128 | signal as u8)
        }
        CommandEnd::Error(error) => return Err(error.by(name)),
    };
    // A script may compare what the command has written to stderr, a user reads it.
    if status.code() != 0 && is_terminal() {
        print_hint(status.code().into(), &stderr, &cmd, &files, Runner::Eval);
    }
    Ok(status)
}
