//! Closing a connection while another thread uses it.

use std::net::{Shutdown, TcpStream};

/// A handle that closes a connection while another thread uses it.
pub struct Closer(pub(super) TcpStream);

impl Closer {
    /// Closes the connection. The user of the connection gets an error.
    pub fn close(&self) {
        // An error means that it is closed already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
