//! What is asked of a daemon by HTTP. The daemon is a program and no library: its parser is included as a file.

#![no_main]

use hyper::Method;
use libfuzzer_sys::fuzz_target;
use route::Route;

#[allow(dead_code)]
#[path = "../../daemon/route.rs"]
mod route;

fuzz_target!(|input: (u8, &str, &str)| {
    let (method, path, query) = input;
    let methods = [Method::GET, Method::PUT, Method::POST, Method::DELETE];
    if let Err(error) = Route::parse(&methods[usize::from(method) % methods.len()], path, query) {
        assert!(!error.to_string().contains(char::is_control), "{error:?}");
    }
});
