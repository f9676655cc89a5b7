//! The credentials of copies: those of profiles and programs, what is told of those that are wrong, and those of nodes. The servers
//! of S3 check signatures.

use crate::harness::{Cluster, text};
use crate::s3_cloud::{Home, LATER, ROLE_KEY, RoleServer, SECRET, Service, is_by, keys, one_line, section};
use crate::s3_servers::{ACCESS_KEY, Fault, S3Server, SECRET_KEY};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a_profile_has_the_keys_in_either_file_and_says_where_s3_is() {
    let Some(server) = S3Server::seaweed() else { return };
    let (home, url) = (Home::new(), server.url());
    let (right, wrong) = (|name: &str| section(name, ACCESS_KEY, SECRET_KEY), |name: &str| section(name, "no", SECRET));
    home.write(".aws/credentials", &[wrong("default"), right("work")].concat());
    let place = format!("endpoint_url = {url}\nregion = us-east-1\ns3 =\n  max_concurrent_requests = 20\n");
    home.write(".aws/config", &[&*wrong("profile work"), &right("profile only"), &place].concat());
    home.works(&url, &[("AWS_PROFILE", "work")], &[]);
    home.works(&url, &[], &["--profile", "work"]);
    home.works(&url, &[("AWS_PROFILE", "default")], &["--profile", "work"]);
    home.works_with(&[], &["--profile", "only"]);
    // A profile that is named as an option comes before the environment, which comes before AWS_PROFILE.
    let own = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];
    home.works(&url, &[&own[..], &[("AWS_PROFILE", "default")]].concat(), &[]);
    home.works(&url, &[("AWS_ACCESS_KEY_ID", "no"), ("AWS_SECRET_ACCESS_KEY", SECRET)], &["--profile", "work"]);
    home.works(&url, &[("AWS_ACCESS_KEY_ID", ""), ("AWS_PROFILE", "work")], &[]);
    // Files elsewhere.
    let (config, credentials) =
        (home.write("a/c", &format!("[default]\n{place}")), home.write("a/k", &right("default")));
    let files = [("AWS_CONFIG_FILE", &*config), ("AWS_SHARED_CREDENTIALS_FILE", &*credentials)];
    home.works_with(&files, &[]);
    let told = one_line(&home.run(&[], &["get", "s3://data/x", "--endpoint-url", &url], b""));
    assert!(told.contains("(HTTP status 403)"), "the keys of the default profile are wrong: {told}");
}

#[test]
fn a_program_prints_credentials_and_its_arguments_may_be_quoted() {
    let Some(server) = S3Server::seaweed() else { return };
    let (home, url) = (Home::new(), server.url());
    let printed =
        |more: &str| format!(r#"{{"Version":1,"AccessKeyId":"{ACCESS_KEY}","SecretAccessKey":"{SECRET_KEY}"{more}}}"#);
    home.write("with space/keys", &printed(""));
    home.write("soon", &printed(r#","Expiration":"'$(date -u -d "+60 seconds" +%FT%TZ)'""#));
    let dir = home.path().display();
    home.write(
        ".aws/config",
        &format!(
            "[profile quoted]\ncredential_process = cat \"{dir}/with space/keys\"\n\
             [profile counted]\ncredential_process = sh -c 'echo run >> {dir}/runs; cat \"{dir}/with space/keys\"'\n\
             [profile soon]\ncredential_process = echo run >> {dir}/soon-runs; eval \"echo '$(cat {dir}/soon)'\"\n"
        ),
    );
    let runs = |file: &str| std::fs::read_to_string(home.path().join(file)).unwrap_or_default().lines().count();
    home.works(&url, &[("AWS_PROFILE", "quoted")], &[]);
    home.works(&url, &[], &["--profile", "counted"]);
    assert_eq!(runs("runs"), 2, "once for each program, as nothing expires");
    home.works(&url, &[], &["--profile", "soon"]);
    assert!(runs("soon-runs") > 2, "before each request, as everything expires soon: {}", runs("soon-runs"));
}

#[test]
fn what_is_wrong_with_credentials_is_told_in_one_line_without_them() {
    let home = Home::new();
    let told = home.fails(&[], &[]);
    assert!(
        told.contains("no credentials: none were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        "{told}"
    );
    let told = home.fails(&[("AWS_ACCESS_KEY_ID", "id")], &[]);
    assert!(told.contains("AWS_ACCESS_KEY_ID is set, and AWS_SECRET_ACCESS_KEY is not"), "{told}");
    for (environment, options) in [(&[("AWS_PROFILE", "nobody")][..], &[][..]), (&[], &["--profile", "nobody"])] {
        let told = home.fails(environment, options);
        assert!(told.contains("no profile 'nobody' in ") && told.contains("/.aws/credentials"), "{told}");
    }
    home.write("garbage", &format!("{SECRET}\n"));
    let cat = format!("cat {}/garbage", home.path().display());
    for (command, why) in [
        (&*format!("echo {SECRET}; echo {SECRET} >&2; exit 3"), "exit status: 3"),
        (&*cat, "it printed no credentials of version 1"),
        (
            &*format!(r#"echo '{{"Version":2,"AccessKeyId":"a","SecretAccessKey":"{SECRET}"}}'"#),
            "it printed no credentials of version 1",
        ),
        ("/absent/program", "exit status: 127"),
    ] {
        home.write(".aws/config", &format!("[profile p]\ncredential_process = {command}\n"));
        let told = home.fails(&[], &["--profile", "p"]);
        assert!(told.contains(&format!("credential_process of the profile 'p': {why}")), "{told}");
    }
    home.write(".aws/config", &format!("[default]\n{SECRET}\n"));
    let told = home.fails(&[], &[]);
    assert!(told.contains("/.aws/config: line 2: malformed"), "{told}");
    if let Some(server) = S3Server::seaweed() {
        home.write(".aws/config", &section("default", ACCESS_KEY, &format!("wrong{SECRET}")));
        let told = one_line(&home.run(&[], &["get", "s3://data/x", "--endpoint-url", &server.url()], b""));
        assert!(told.contains("SignatureDoesNotMatch"), "{told}");
    }
}

/// Objects below `src/`, through the node of the server.
fn prepared(server: &RoleServer) {
    let dir = server.cluster.dir().join("objects");
    std::fs::create_dir(&dir).unwrap();
    for number in 0..60 {
        std::fs::write(dir.join(format!("{number}_f")), format!("{number}\n")).unwrap();
    }
    std::fs::write(dir.join("large"), vec![7; 20_000_000]).unwrap();
    server.cluster.ok(&["cp", "-r", "objects", "s4://data/src/"]);
}

/// The environment of a daemon, or of a program, in which the service of a container alone gives credentials.
fn of_container<'a>(home: &'a Path, uri: &'a str) -> [(&'static str, &'a str); 5] {
    [
        ("HOME", home.to_str().unwrap()),
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_PROFILE", ""),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri),
    ]
}

#[test]
fn credentials_of_nodes_that_expire_in_the_middle_of_a_copy_are_read_again() {
    const OLD: &str = "ASIAOFANEARLIERSESSION";
    // From the twentieth request on, the server takes the old credentials no more.
    let has_expired = Arc::new(AtomicBool::new(false));
    let (expiring, mut count) = (has_expired.clone(), 0);
    let server = RoleServer::start(move |head| {
        count += 1;
        expiring.fetch_or(count > 20, Ordering::Relaxed);
        (count > 20 && is_by(head, OLD)).then_some(Fault::Expired)
    });
    let Some(server) = server else { return };
    prepared(&server);
    let service = Service::start(move |_| match has_expired.load(Ordering::Relaxed) {
        true => (200, keys(LATER)),
        false => (200, keys(LATER).replace(ROLE_KEY, OLD)),
    });
    let (home, uri) = (Home::new(), service.url());
    let cluster = Cluster::with_environment(2, &of_container(home.path(), &uri));
    for (from, to) in [("s3://data/src/", "s4://in/"), ("s4://in/", "s3://data/out/")] {
        let copied = cluster.run(&["cp", "-r", "--endpoint-url", &server.url(), "--jobs", "4", from, to]);
        assert!(copied.status.success(), "{}", text(&copied.stderr));
        assert!(text(&copied.stderr).contains("61 objects done"), "{}", text(&copied.stderr));
    }
    assert_eq!(cluster.get("s4://in/large"), server.cluster.get("s4://data/out/large"));
    let seen = server.proxy.seen();
    let by = |key: &str| seen.iter().filter(|head| is_by(head, key)).count();
    assert!(by(OLD) >= 20 && by(ROLE_KEY) > 60 && by(OLD) + by(ROLE_KEY) == seen.len(), "{} {}", by(OLD), by(ROLE_KEY));
    // Two workers of two copies; those of the first have read them twice.
    assert!((4..20).contains(&service.seen().len()), "{}", service.seen().len());
}

#[test]
fn a_node_without_credentials_says_so_and_copies_nothing() {
    let Some(server) = RoleServer::of_role() else { return };
    prepared(&server);
    let home = Home::new();
    let refusing = Service::start(|_| (403, SECRET.to_owned()));
    let uri = refusing.url();
    let cluster = Cluster::with_environment(2, &of_container(home.path(), &uri));
    cluster.put("s4://out/0_x", b"x");
    cluster.put("s4://out/1_x", b"x");
    for (from, to) in [("s3://data/src/", "s4://in/"), ("s4://out/", "s3://data/out/")] {
        let told = cluster.fails(1, &["cp", "-r", "--endpoint-url", &server.url(), from, to]);
        assert!(told.contains("no credentials: the role of the container: refused"), "{told}");
        assert!(!told.contains(SECRET), "{told}");
    }
    assert!(server.proxy.seen().is_empty());
}
