//! A client of S3, for copies: lists, reads and writes objects, whole and in parts. Signing, and what the services of AWS are
//! asked for credentials, are reqsign's, HTTP is hyper's; what is here are the requests, and what makes them reliable.
//!
//! Every request is sent again, a bounded number of times, if the server is busy or the connection breaks; a body is
//! held in memory until the server has answered, so parts are bounded. Requests at a time are fewer where the server
//! answers that it is busy. Credentials are read again when they expire. Nothing that this module prints contains one.

mod chain;
mod checksum;
mod credentials;
mod failure;
mod governor;
mod http;
mod list;
mod multipart;
mod object;
mod page;
mod place;
mod profile;
mod request;
mod settings;
mod url;
mod xml;

pub use checksum::{Sent, door_etag};
pub use failure::{Failure, Reason};
pub use multipart::{CompletedPart, MAX_PARTS, Part, Unfinished};
pub use object::{NewObject, ObjectInfo, PART};
pub use page::{Listed, Page};
pub use request::S3;
pub use settings::Settings;
pub use url::S3Url;
