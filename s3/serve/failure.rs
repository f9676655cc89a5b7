//! Errors of the cluster as errors of S3. Clients repeat requests that ended with a status of 500 or 503.

use s3s::{S3Error, S3ErrorCode};
use s4::error::{Error, ErrorKind};

/// The error of S3 for `error` of a request about an object.
pub fn of(error: &Error) -> S3Error {
    let message = error.to_string();
    match error.kind() {
        ErrorKind::Usage | ErrorKind::BadName => S3Error::with_message(S3ErrorCode::InvalidArgument, message),
        ErrorKind::NotFound => S3Error::with_message(S3ErrorCode::NoSuchKey, message),
        ErrorKind::AlreadyExists => S3Error::with_message(S3ErrorCode::PreconditionFailed, message),
        ErrorKind::NotEmpty => S3Error::with_message(S3ErrorCode::BucketNotEmpty, message),
        ErrorKind::TooLarge => S3Error::with_message(S3ErrorCode::EntityTooLarge, message),
        ErrorKind::RequestTimeout => S3Error::with_message(S3ErrorCode::RequestTimeout, message),
        ErrorKind::Busy => S3Error::with_message(S3ErrorCode::SlowDown, message),
        ErrorKind::Unreachable | ErrorKind::Deadline | ErrorKind::ShuttingDown => {
            S3Error::with_message(S3ErrorCode::ServiceUnavailable, message)
        }
        ErrorKind::NoSpace => {
            let mut full = S3Error::with_message(S3ErrorCode::Custom("InsufficientStorage".into()), message);
            full.set_status_code(hyper::StatusCode::INSUFFICIENT_STORAGE);
            full
        }
        // Faults of the door's own configuration: clients are not told that they lack rights.
        ErrorKind::Config | ErrorKind::ClusterMismatch | ErrorKind::WrongNode | ErrorKind::Forbidden => {
            S3Error::with_message(S3ErrorCode::InternalError, message)
        }
        ErrorKind::Checksum
        | ErrorKind::BadRequest
        | ErrorKind::MethodNotAllowed
        | ErrorKind::Command
        | ErrorKind::Cancelled
        | ErrorKind::OutputClosed
        | ErrorKind::Io => S3Error::with_message(S3ErrorCode::InternalError, message),
    }
}

/// Adds the error of S3 to a result.
pub trait OrFailure<T> {
    fn or_failure(self) -> s3s::S3Result<T>;
}

impl<T> OrFailure<T> for s4::error::Result<T> {
    fn or_failure(self) -> s3s::S3Result<T> {
        self.map_err(|error| of(&error))
    }
}
