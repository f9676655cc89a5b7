//! The routes of the HTTP interface: parses a request's method, path and query. Pure functions.

use hyper::Method;
use percent_encoding::percent_decode_str;
use s4::checksum::Checksum;
use s4::error::{Error, ErrorKind, Result};
use s4::key::{Dir, Key, Prefix};
use s4::placement::NodeId;
use s4::protocol::{Change, JobId, MAX_INPUTS, PartNumber, UploadId, UploadPart};
use std::str::FromStr;

/// What is listed: see `Selection::Prefix` of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub prefix: Prefix,
    pub recursive: bool,
    pub details: bool,
    pub made: bool,
    pub after: String,
}

/// A parsed request.
#[derive(Debug)]
pub enum Route {
    Health,
    Usage,
    Status { samples: Option<usize> },
    Watch { samples: Option<usize> },
    GetKey(Key),
    HeadKey(Key),
    Head(Key),
    PutKey { key: Key, change: Change, part: Option<UploadPart> },
    CreateUpload(Key),
    ListUploads { prefix: Prefix, after: (String, String) },
    ListParts { key: Key, id: UploadId, after: u32 },
    AbortUpload { key: Key, id: UploadId },
    DeleteKey { key: Key, keep_dirs: bool, only: Option<Checksum> },
    AdoptKey(Key),
    ChangeKey(Key),
    RenameKey { from: Key, to: Key },
    Stat(Dir),
    Made(Key),
    Connect,
    MakeDir(Dir),
    HoldsDir(Dir),
    ChangeDir(Dir),
    RemoveDir { dir: Dir, once_empty: bool },
    EnterDirs,
    LeftDirs,
    LetGoDirs,
    AuditDirs(NodeId),
    HeldDirs(NodeId),
    List(Listed),
    DeletePrefix(Prefix),
    Scrub { rate: u64, resume: bool, remove_strays: bool },
    ResizeState,
    CheckResize { skip_conf: bool },
    BeginResize,
    MoveKeys,
    TakeDirs,
    SyncMoved,
    EndResize,
    SubmitJob { dry_run: bool },
    HasFile(String),
    PutFile(String),
    ListJobs,
    FindJob(JobId),
    StartJob { id: JobId, follows: bool },
    StopJob(JobId),
    CancelJob(JobId),
    FollowJob(JobId),
    CleanJob { id: JobId, prefix: Prefix, inputs: Option<u64> },
    ExistingOutputs { outdir: Dir, of: Option<NodeId> },
    Provenance { key: Key, page: Page },
    GiveProvenance(Key),
    Why(Key),
    TaskRecord { job: u64, digest: u64, page: Page },
    JobLogs { id: JobId, key: Option<Key> },
}

/// A range of a task's inputs.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// The number of the first input, from 0.
    pub from: u64,
    pub most: usize,
}

impl Route {
    /// The key of the request, if it has one.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::GetKey(key)
            | Self::HeadKey(key)
            | Self::Head(key)
            | Self::PutKey { key, .. }
            | Self::CreateUpload(key)
            | Self::ListParts { key, .. }
            | Self::AbortUpload { key, .. }
            | Self::DeleteKey { key, .. }
            | Self::AdoptKey(key)
            | Self::ChangeKey(key)
            | Self::RenameKey { from: key, .. }
            | Self::Made(key) => Some(key),
            _ => None,
        }
    }

    /// True if the request is answered even if there are too many connections.
    pub fn is_urgent(&self) -> bool {
        matches!(self, Self::Health | Self::Status { .. } | Self::Watch { .. } | Self::CancelJob(_))
    }

    /// True if the request is answered during a resize.
    pub fn is_of_resize(&self) -> bool {
        matches!(
            self,
            Self::Health
                | Self::Status { .. }
                | Self::Watch { .. }
                | Self::ResizeState
                | Self::CheckResize { .. }
                | Self::BeginResize
                | Self::MoveKeys
                | Self::TakeDirs
                | Self::SyncMoved
                | Self::EndResize
                | Self::EnterDirs
                | Self::Connect
        )
    }

    /// True if the request must not be executed after its sender has stopped waiting. Requests that end something are
    /// always executed.
    pub fn changes_something(&self, method: &Method) -> bool {
        !matches!(*method, Method::GET | Method::HEAD) && !matches!(self, Self::StopJob(_) | Self::CancelJob(_))
    }

    /// One line for each route. Queries are parsed by separate functions.
    pub fn parse(method: &Method, path: &str, query: &str) -> Result<Self> {
        let unknown = || Error::new(ErrorKind::NotFound, format!("no such route: {}", path.escape_debug()));
        let below = path.strip_prefix("/v1/").ok_or_else(unknown)?;
        let (head, rest) = below.split_once('/').unwrap_or((below, ""));
        match (method, head, rest) {
            (&Method::GET, "health", "") => Ok(Route::Health),
            (&Method::GET, "usage", "") => Ok(Route::Usage),
            (&Method::GET, "status", "") => samples(query).map(|samples| Route::Status { samples }),
            (&Method::GET, "watch", "") => samples(query).map(|samples| Route::Watch { samples }),
            (&Method::GET, "keys", key) => parse_key(key).map(Route::GetKey),
            (&Method::HEAD, "keys", key) => parse_key(key).map(Route::HeadKey),
            (&Method::GET, "head", key) => parse_key(key).map(Route::Head),
            (&Method::PUT, "keys", key) => put_route(key, query),
            (&Method::POST, "uploads", key) => parse_key(key).map(Route::CreateUpload),
            (&Method::GET, "uploads", "") => uploads_route(query),
            (&Method::GET, "uploads", key) => parts_route(key, query),
            (&Method::DELETE, "uploads", key) => abort_route(key, query),
            (&Method::DELETE, "keys", key) => delete_route(key, query),
            (&Method::POST, "adopt", key) => parse_key(key).map(Route::AdoptKey),
            (&Method::POST, "change", key) => parse_key(key).map(Route::ChangeKey),
            (&Method::POST, "rename", key) => rename_route(key, query),
            (&Method::GET, "stat", path) => parse_dir(path).map(Route::Stat),
            (&Method::GET, "made", key) => parse_key(key).map(Route::Made),
            (&Method::POST, "connect", "") => Ok(Route::Connect),
            (&Method::PUT, "dirs", dir) => parse_dir(dir).map(Route::MakeDir),
            (&Method::GET, "dirs", dir) => parse_dir(dir).map(Route::HoldsDir),
            (&Method::POST, "dirs", dir) => parse_dir(dir).map(Route::ChangeDir),
            (&Method::DELETE, "dirs", dir) => {
                Ok(Route::RemoveDir { dir: parse_dir(dir)?, once_empty: is_true(query, "once_empty")? })
            }
            (&Method::POST, "names", "enter") => Ok(Route::EnterDirs),
            (&Method::POST, "names", "left") => Ok(Route::LeftDirs),
            (&Method::POST, "names", "let_go") => Ok(Route::LetGoDirs),
            (&Method::POST, "names", "audit") => number(query, "node").map(Route::AuditDirs),
            (&Method::GET, "names", "held") => number(query, "home").map(Route::HeldDirs),
            (&Method::GET, "list", "") => list_route(query),
            (&Method::POST, "delete", "") => delete_prefix_route(query),
            (&Method::POST, "scrub", "") => scrub_route(query),
            (&Method::GET, "resize", "") => Ok(Route::ResizeState),
            (&Method::POST, "resize", "") if is_true(query, "check")? => {
                Ok(Route::CheckResize { skip_conf: is_true(query, "skip_conf")? })
            }
            (&Method::POST, "resize", "") => Ok(Route::BeginResize),
            (&Method::POST, "resize", "move") => Ok(Route::MoveKeys),
            (&Method::POST, "resize", "dirs") => Ok(Route::TakeDirs),
            (&Method::POST, "resize", "sync") => Ok(Route::SyncMoved),
            (&Method::POST, "resize", "end") => Ok(Route::EndResize),
            (&Method::GET, "files", digest) => Ok(Route::HasFile(digest.to_owned())),
            (&Method::PUT, "files", digest) => Ok(Route::PutFile(digest.to_owned())),
            (&Method::GET, "existing", "") => existing_outputs_route(query),
            (&Method::GET, "provenance", "") => task_route(query),
            (&Method::POST, "provenance", key) => parse_key(key).map(Route::GiveProvenance),
            (&Method::GET, "why", key) => parse_key(key).map(Route::Why),
            (&Method::GET, "provenance", key) => provenance_route(key, query),
            (&Method::POST, "jobs", "") => is_true(query, "dry_run").map(|dry_run| Route::SubmitJob { dry_run }),
            (&Method::GET, "jobs", "") => Ok(Route::ListJobs),
            (method, "jobs", job) => job_route(method, job, query).ok_or_else(unknown)?,
            (method, head, rest) if is_route(head, rest) => Err(wrong_method(method)),
            _ => Err(unknown()),
        }
    }
}

/// True if the path exists for any method, except paths of jobs.
fn is_route(head: &str, rest: &str) -> bool {
    match head {
        "health" | "usage" | "status" | "watch" | "list" | "delete" | "scrub" | "connect" | "existing" => {
            rest.is_empty()
        }
        "keys" | "head" | "uploads" | "files" | "adopt" | "change" | "rename" | "stat" | "made" | "dirs"
        | "provenance" | "why" => true,
        "resize" => matches!(rest, "" | "move" | "dirs" | "sync" | "end"),
        "names" => matches!(rest, "enter" | "left" | "let_go" | "audit" | "held"),
        _ => false,
    }
}

fn put_route(key: &str, query: &str) -> Result<Route> {
    let part = match query_value(query, "upload")? {
        Some(upload) => Some(UploadPart {
            upload: UploadId::try_from(upload)?,
            number: PartNumber::try_from(number::<u32>(query, "part")?)?,
        }),
        None => None,
    };
    Ok(Route::PutKey { key: parse_key(key)?, change: attributes(query)?, part })
}

fn uploads_route(query: &str) -> Result<Route> {
    let prefix = Prefix::parse(&query_value(query, "prefix")?.unwrap_or_default())?;
    let after = |name| query_value(query, name).map(Option::unwrap_or_default);
    Ok(Route::ListUploads { prefix, after: (after("after")?, after("after_id")?) })
}

fn parts_route(key: &str, query: &str) -> Result<Route> {
    let after = query_value(query, "after")?.map(|after| after.parse().map_err(|_| malformed("after"))).transpose()?;
    Ok(Route::ListParts { key: parse_key(key)?, id: upload_id(query)?, after: after.unwrap_or(0) })
}

fn abort_route(key: &str, query: &str) -> Result<Route> {
    Ok(Route::AbortUpload { key: parse_key(key)?, id: upload_id(query)? })
}

fn upload_id(query: &str) -> Result<UploadId> {
    UploadId::try_from(field(query, "id")?)
}

fn delete_route(key: &str, query: &str) -> Result<Route> {
    Ok(Route::DeleteKey { key: parse_key(key)?, keep_dirs: is_true(query, "keep_dirs")?, only: checksum(query)? })
}

fn rename_route(from: &str, query: &str) -> Result<Route> {
    let to = field(query, "to")?;
    Ok(Route::RenameKey { from: parse_key(from)?, to: Key::parse(&to)? })
}

fn list_route(query: &str) -> Result<Route> {
    let prefix = Prefix::parse(&query_value(query, "prefix")?.unwrap_or_default())?;
    let after = query_value(query, "after")?.unwrap_or_default();
    Ok(Route::List(Listed {
        prefix,
        recursive: is_true(query, "recursive")?,
        details: is_true(query, "details")?,
        made: is_true(query, "made")?,
        after,
    }))
}

fn delete_prefix_route(query: &str) -> Result<Route> {
    let prefix = field(query, "prefix")?;
    match prefix.is_empty() {
        true => Err(Error::new(ErrorKind::BadRequest, "an empty prefix would delete everything")),
        false => Prefix::parse(&prefix).map(Route::DeletePrefix),
    }
}

fn scrub_route(query: &str) -> Result<Route> {
    match number(query, "rate")? {
        0 => Err(malformed("rate")),
        rate => {
            let (resume, remove_strays) = (is_true(query, "resume")?, is_true(query, "remove_strays")?);
            Ok(Route::Scrub { rate, resume, remove_strays })
        }
    }
}

fn existing_outputs_route(query: &str) -> Result<Route> {
    let of = query_value(query, "node")?.map(|node| node.parse().map_err(|_| malformed("node"))).transpose()?;
    Ok(Route::ExistingOutputs { outdir: Dir::try_from(field(query, "outdir")?)?, of })
}

fn provenance_route(key: &str, query: &str) -> Result<Route> {
    Ok(Route::Provenance { key: parse_key(key)?, page: page(query)? })
}

fn task_route(query: &str) -> Result<Route> {
    Ok(Route::TaskRecord { job: hexadecimal(query, "job")?, digest: hexadecimal(query, "digest")?, page: page(query)? })
}

fn page(query: &str) -> Result<Page> {
    let most = query_value(query, "inputs")?.map(|most| most.parse().map_err(|_| malformed("inputs"))).transpose()?;
    let from = query_value(query, "from")?.map(|from| from.parse().map_err(|_| malformed("from"))).transpose()?;
    Ok(Page { from: from.unwrap_or(0), most: most.map_or(MAX_INPUTS, |most: usize| most.min(MAX_INPUTS)) })
}

fn hexadecimal(query: &str, name: &str) -> Result<u64> {
    u64::from_str_radix(&field(query, name)?, 16).map_err(|_| malformed(name))
}

fn malformed(name: &str) -> Error {
    Error::new(ErrorKind::BadRequest, format!("the query's {name} is malformed"))
}

fn missing(name: &str) -> Error {
    Error::new(ErrorKind::BadRequest, format!("the query has no {name}"))
}

/// A required field of the query.
fn field(query: &str, name: &str) -> Result<String> {
    query_value(query, name)?.ok_or_else(|| missing(name))
}

fn number<T: FromStr>(query: &str, name: &str) -> Result<T> {
    field(query, name)?.parse().map_err(|_| malformed(name))
}

fn is_true(query: &str, name: &str) -> Result<bool> {
    Ok(query_value(query, name)?.is_some_and(|value| value == "true"))
}

fn checksum(query: &str) -> Result<Option<Checksum>> {
    query_value(query, "checksum")?.map(|sum| sum.parse().map_err(|()| malformed("checksum"))).transpose()
}

/// The attributes of a new key.
fn attributes(query: &str) -> Result<Change> {
    let mode = query_value(query, "mode")?.map(|text| u32::from_str_radix(&text, 8).map_err(|_| malformed("mode")));
    let mtime = query_value(query, "mtime")?.map(|text| text.parse().map_err(|_| malformed("mtime")));
    Ok(Change { mode: mode.transpose()?, mtime: mtime.transpose()?, over_empty: is_true(query, "over_empty")? })
}

/// `None` if the path exists for no method.
fn job_route(method: &Method, path: &str, query: &str) -> Option<Result<Route>> {
    let (id, action) = path.split_once('/').unwrap_or((path, ""));
    let with_id = |make: fn(JobId) -> Route| JobId::try_from(id.to_owned()).map(make);
    Some(match (method, action) {
        (&Method::GET, "") if !id.is_empty() => with_id(Route::FindJob),
        (&Method::DELETE, "") if !id.is_empty() => with_id(Route::CancelJob),
        (&Method::POST, "start") => start_route(id, query),
        (&Method::POST, "stop") => with_id(Route::StopJob),
        (&Method::GET, "events") => with_id(Route::FollowJob),
        (&Method::POST, "clean") => clean_route(id, query),
        (&Method::GET, "logs") => logs_route(id, query),
        (_, "" | "start" | "stop" | "events" | "clean" | "logs") => Err(wrong_method(method)),
        _ => return None,
    })
}

fn start_route(id: &str, query: &str) -> Result<Route> {
    Ok(Route::StartJob { id: JobId::try_from(id.to_owned())?, follows: is_true(query, "follow")? })
}

fn clean_route(id: &str, query: &str) -> Result<Route> {
    let prefix = query_value(query, "prefix")?.unwrap_or_default();
    let inputs = query_value(query, "inputs")?;
    let inputs = inputs.map(|inputs| u64::from_str_radix(&inputs, 16).map_err(|_| malformed("inputs"))).transpose()?;
    Ok(Route::CleanJob { id: JobId::try_from(id.to_owned())?, prefix: Prefix::parse(&prefix)?, inputs })
}

fn logs_route(id: &str, query: &str) -> Result<Route> {
    let key = query_value(query, "key")?.map(|key| Key::parse(&key)).transpose()?;
    Ok(Route::JobLogs { id: JobId::try_from(id.to_owned())?, key })
}

fn wrong_method(method: &Method) -> Error {
    Error::new(ErrorKind::MethodNotAllowed, format!("this route does not take {method}"))
}

fn parse_key(path: &str) -> Result<Key> {
    Key::parse(&decode(path)?)
}

fn parse_dir(path: &str) -> Result<Dir> {
    Dir::try_from(decode(path)?)
}

fn samples(query: &str) -> Result<Option<usize>> {
    let wrong = |_| Error::new(ErrorKind::BadRequest, "the query's samples is no number");
    query_value(query, "samples")?.map(|value| value.parse().map_err(wrong)).transpose()
}

fn decode(text: &str) -> Result<String> {
    let malformed = || {
        Error::new(
            ErrorKind::BadRequest,
            format!("'{}': a % is followed by two hexadecimal digits", text.escape_debug()),
        )
    };
    let mut escapes = text.split('%').skip(1);
    if !escapes.all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit())) {
        return Err(malformed());
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(String::from)
        .map_err(|_| Error::new(ErrorKind::BadName, format!("'{}': a name is UTF-8", text.escape_debug())))
}

fn query_value(query: &str, name: &str) -> Result<Option<String>> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(given, _)| *given == name).map(|(_, value)| decode(value)).next().transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use s4::protocol::escape;

    const METHODS: [Method; 5] = [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::PATCH];

    proptest! {
        #[test]
        fn a_name_is_read_as_it_was_escaped(name in "\\PC{1,20}") {
            prop_assert_eq!(decode(&escape(&name)).unwrap(), &*name);
            let query = format!("x=1&prefix={}&y", escape(&name));
            prop_assert_eq!(query_value(&query, "prefix").unwrap().unwrap(), &*name);
        }

        #[test]
        fn any_text_is_decoded_or_refused(text in "[%0-9a-fé+/]{0,12}|\\PC{0,8}") {
            if let Ok(decoded) = decode(&text) {
                prop_assert_eq!(decode(&escape(&decoded)).unwrap(), decoded);
            }
        }

        #[test]
        fn any_request_is_a_route_or_an_error_of_one_line(
            method in 0..METHODS.len(),
            head in "/v1/(health|status|watch|keys|head|uploads|adopt|change|rename|stat|made|dirs|names|list|delete|files|existing|jobs|x)",
            rest in "(/([a-z0-9%-]{0,4}|held|audit|[0-9]{8}-logs|_x)){0,3}",
            query in "((to|prefix|node|home|mode|mtime|samples|checksum|inputs|outdir|recursive|made|after|upload|part|id)=[a-f0-9%/+ -]{0,6}&?){0,4}",
        ) {
            let method = &METHODS[method];
            match Route::parse(method, &format!("{head}{rest}"), &query) {
                Ok(route) => prop_assert!(*method != Method::GET || !route.changes_something(method)),
                Err(error) => {
                    let kinds = [ErrorKind::NotFound, ErrorKind::MethodNotAllowed, ErrorKind::BadRequest, ErrorKind::BadName];
                    prop_assert!(kinds.contains(&error.kind()), "{error:?}");
                    prop_assert!(!error.to_string().contains(char::is_control), "{error:?}");
                }
            }
        }
    }

    #[test]
    fn no_name_in_a_path_leaves_its_bucket() {
        for path in [
            "/v1/keys/b/../c",
            "/v1/keys/b/%2e%2e/c",
            "/v1/keys/b%2f..%2fc",
            "/v1/keys//b/c",
            "/v1/dirs/..",
            "/v1/keys/b/%00",
        ] {
            let refused = Route::parse(&Method::GET, path, "");
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::BadName, "{path}");
        }
    }
}
