//! Running commands on a node, most of them on a key. Their output arrives as it is written.

use super::core::{Client, blocking};
use crate::blocks::leaf_sum;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::placement::NodeId;
use crate::protocol::{JobFile, JobSpec};
use crate::wire::frame::MAX_DATA;
use crate::wire::{CommandEnd, Connection, Incoming, Request, Response};
use std::io::Write;

impl Client {
    /// Runs `cmd` on the node of `key` with the key as stdin, and with `files`, which the node has, in its directory.
    /// Its output goes to `stdout` and `stderr` as it arrives.
    pub async fn eval(
        &self,
        key: &Key,
        cmd: Vec<u8>,
        files: Vec<JobFile>,
        stdout: impl Write + Send + 'static,
        stderr: impl Write + Send + 'static,
    ) -> Result<CommandEnd> {
        let request = Request::Eval { key: key.clone(), files };
        self.run_command(self.cluster().node_of(key), request, cmd, stdout, stderr).await
    }

    /// Runs `cmd` on `node` as [`Client::eval`] does, but without a key.
    pub async fn run_on(
        &self,
        node: NodeId,
        cmd: Vec<u8>,
        files: Vec<JobFile>,
        stdout: impl Write + Send + 'static,
        stderr: impl Write + Send + 'static,
    ) -> Result<CommandEnd> {
        self.run_command(node, Request::Run { files }, cmd, stdout, stderr).await
    }

    /// Runs the task of `key` in the job `spec` on its node, and publishes nothing. Its output goes to `stdout` and
    /// `stderr` as it arrives; for a 1:n map, the printed names go to `stdout`.
    pub async fn try_job(
        &self,
        spec: &JobSpec,
        key: &Key,
        stdout: impl Write + Send + 'static,
        stderr: impl Write + Send + 'static,
    ) -> Result<CommandEnd> {
        let json = super::jobs::job_json(spec)?;
        self.run_command(self.cluster().node_of(key), Request::Try { key: key.clone() }, json, stdout, stderr).await
    }

    async fn run_command(
        &self,
        node: NodeId,
        request: Request,
        data: Vec<u8>,
        stdout: impl Write + Send + 'static,
        stderr: impl Write + Send + 'static,
    ) -> Result<CommandEnd> {
        let connection = self.start_data_request(node, &request).await?;
        let ran = blocking(move || {
            let mut connection = connection;
            for part in data.chunks(MAX_DATA) {
                connection.put_data(part, leaf_sum(part))?;
            }
            connection.put_message(&Request::End)?;
            pass_on(connection, stdout, stderr)
        });
        self.noting(node, ran.await)
    }
}

/// Passes the output of a command on until the command ends.
fn pass_on(mut connection: Connection, mut stdout: impl Write, mut stderr: impl Write) -> Result<CommandEnd> {
    loop {
        match connection.receive_next()? {
            Incoming::Data(_) => {
                let bytes = connection.receive_small()?;
                stdout.write_all(&bytes).and_then(|()| stdout.flush()).map_err(|e| Error::io("stdout", &e))?;
            }
            Incoming::Stderr(bytes) => stderr.write_all(&bytes).map_err(|e| Error::io("stderr", &e))?,
            Incoming::Message(Response::Exit(end)) => return Ok(end),
            Incoming::Error(error) => return Err(error.of_peer(connection.subject())),
            Incoming::Message(_) => return Err(connection.malformed("another response than to what was asked")),
        }
    }
}
