//! The data that follows a request on a connection.

use bytes::BytesMut;
use s4::error::{Error, ErrorKind, Result};
use s4::wire::{Connection, Incoming, Request};
use std::time::{Duration, Instant};

/// Limits for discarding the data of a refused request until its sender has noticed the refusal: bytes, and time.
const SKIPPED: (usize, Duration) = (256 << 20, Duration::from_secs(30));

/// The data that follows a request.
pub struct Data<'c> {
    pub connection: &'c mut Connection,
    has_ended: bool,
}

/// The next item of a request's data.
pub enum Next {
    /// A payload of this many bytes must be received.
    Piece(usize),
    End(Request),
}

impl<'c> Data<'c> {
    /// The data of a request, if the request has any.
    pub fn of(connection: &'c mut Connection, has_data: bool) -> Self {
        Self { connection, has_ended: !has_data }
    }

    pub fn next(&mut self) -> Result<Next> {
        match self.connection.receive_next()? {
            Incoming::Data(len) => Ok(Next::Piece(len)),
            Incoming::Message(end @ (Request::PutEnd(_) | Request::End)) => {
                self.has_ended = true;
                Ok(Next::End(end))
            }
            // An error, sent instead of the end.
            Incoming::Error(_) => {
                self.has_ended = true;
                Err(Error::new(ErrorKind::BadRequest, "its sender could not read it to its end"))
            }
            _ => Err(self.connection.malformed("neither data nor its end follows")),
        }
    }

    /// All of the data, at most `most` bytes.
    pub fn whole(&mut self, most: usize) -> Result<Vec<u8>> {
        let mut whole = Vec::new();
        while let Next::Piece(len) = self.next()? {
            if whole.len() + len > most {
                return Err(Error::new(ErrorKind::TooLarge, format!("the request has more than {most} bytes")));
            }
            let mut payload = BytesMut::new();
            if !self.connection.receive_data(&mut payload, len, &mut BytesMut::new())? {
                return Err(self.connection.malformed("data does not match its sum"));
            }
            whole.extend_from_slice(&payload);
        }
        Ok(whole)
    }

    /// Receives the rest of the data and drops it.
    pub fn discard(&mut self) -> Result<()> {
        let mut buffer = BytesMut::new();
        loop {
            while self.connection.data_left() > 0 {
                self.connection.receive_piece(&mut buffer)?;
            }
            if let Next::End(_) = self.next()? {
                return Ok(());
            }
        }
    }

    /// Discards the rest of the data, so that the next request can be read.
    pub fn skip(mut self) -> Result<()> {
        // The sender must receive the refusal at once.
        self.connection.flush()?;
        let (mut left, began, mut buffer) = (SKIPPED.0, Instant::now(), BytesMut::new());
        while !self.has_ended {
            while self.connection.data_left() > 0 {
                self.connection.receive_piece(&mut buffer)?;
            }
            match self.next() {
                Ok(Next::Piece(len)) => left = left.saturating_sub(len),
                Ok(Next::End(_)) => {}
                // The sender has noticed the refusal, and stops.
                Err(_) if self.has_ended => {}
                Err(error) => return Err(error),
            }
            if left == 0 || began.elapsed() > SKIPPED.1 {
                return Err(self.connection.malformed("the sender of what was refused goes on"));
            }
        }
        Ok(())
    }
}
