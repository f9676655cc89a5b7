//! Commands whose output goes to the client at once: `eval`, `run`, and `map --try`.

use super::data::Data;
use crate::app::App;
use crate::jobs::{self, Shared};
use crate::peer::Peer;
use s4::error::{Error, ErrorKind, Result};
use s4::key::Key;
use s4::protocol::{CommandText, HEARTBEAT, JobFile};
use s4::wire::{CommandEnd, Connection, Response};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::SemaphorePermit;

/// Limit of bytes of a command, or of a job with its command.
const MAX_COMMAND: usize = 1 << 20;

/// Runs the command that follows, on `key` if there is one, with `files` in its directory. A failure before the start
/// is reported as an ordinary error.
pub fn eval(app: &Arc<App>, peer: &Peer, data: &mut Data, key: Option<&Key>, files: &[JobFile]) -> Result<Response> {
    let cmd = CommandText::new(OsString::from_vec(data.whole(MAX_COMMAND)?))?;
    files.iter().try_for_each(JobFile::check)?;
    run(&app.jobs.shared, peer, data.connection, key, |shared, connection| match key {
        Some(key) => jobs::eval::run(shared, key, &cmd, files, connection),
        None => jobs::eval::run_alone(shared, &cmd, files, connection),
    })
}

/// Runs the command of the job that follows on the task of `key`, and publishes nothing.
pub fn attempt(app: &Arc<App>, peer: &Peer, data: &mut Data, key: &Key) -> Result<Response> {
    let spec = super::jobs::parse(&data.whole(MAX_COMMAND)?)?;
    spec.check()?;
    run(&app.jobs.shared, peer, data.connection, Some(key), |shared, connection| {
        jobs::eval::attempt(shared, &spec, key, connection)
    })
}

fn run(
    shared: &Arc<Shared>,
    peer: &Peer,
    connection: &mut Connection,
    key: Option<&Key>,
    run: impl FnOnce(&Arc<Shared>, &mut Connection) -> Result<CommandEnd>,
) -> Result<Response> {
    match key {
        Some(key) => drop(shared.store.open_key(key)?),
        None => shared.store.check_there()?,
    }
    let _turn = await_turn(shared, connection)?;
    peer.check_waiting()?;
    let end = run(shared, connection);
    Ok(Response::Exit(end.unwrap_or_else(CommandEnd::Error)))
}

/// Waits for a free slot, and sends keepalives to the client meanwhile. Errors: the client has disconnected.
fn await_turn<'s>(shared: &'s Shared, connection: &mut Connection) -> Result<SemaphorePermit<'s>> {
    let runtime = Handle::current();
    let mut turn = std::pin::pin!(shared.evals.acquire());
    loop {
        let waited = runtime.block_on(async { tokio::time::timeout(HEARTBEAT, &mut turn).await });
        match waited {
            Ok(turn) => return turn.map_err(|e| Error::new(ErrorKind::ShuttingDown, e.to_string())),
            Err(_) if connection.is_closed() => return Err(connection.broken(&std::io::ErrorKind::BrokenPipe.into())),
            Err(_) => connection.send_alive()?,
        }
    }
}
