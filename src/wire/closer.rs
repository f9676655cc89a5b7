//! The end of a connection under whoever uses it.

use std::net::{Shutdown, TcpStream};

/// Ends a connection under whoever uses it.
pub struct Closer(pub(super) TcpStream);

impl Closer {
    /// Breaks it off.
    pub fn close(&self) {
        // One that is broken off already needs no more.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
