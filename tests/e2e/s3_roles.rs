//! The credentials of copies that are those of a role: of a container, an instance, a token, a profile, a login. The services of
//! clouds that give them are the test's own; the server of S3 checks signatures.

use crate::s3_cloud::{
    BEARER, Home, LATER, ROLE, ROLE_KEY, ROLE_SECRET, RoleServer, Service, TOKEN, is_by, keys, of_sts, refused_by_sts,
    section,
};
use crate::s3_servers::{ACCESS_KEY, SECRET_KEY};
use std::io::Write;
use std::process::{Command, Stdio};

#[test]
fn a_container_has_a_role() {
    let Some(server) = RoleServer::of_role() else { return };
    let (home, url) = (Home::new(), server.url());
    let service = Service::start(|request| match request.contains(&format!("authorization: {BEARER}\r\n")) {
        true => (200, keys(LATER)),
        false => (403, format!("{request} is refused")),
    });
    let uri = format!("{}/role", service.url());
    let token = home.write("token", &format!("{BEARER}\n"));
    home.works(
        &url,
        &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", BEARER)],
        &[],
    );
    let file = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &*token);
    home.works(&url, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri), file], &[]);
    assert!(service.seen().len() == 4 && service.seen()[0].starts_with("GET /role "), "{:?}", service.seen());
    server.assert_asked_by_role();
    let wrong = ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "wrongthatnolognames");
    let told = home.fails(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri), wrong], &[]);
    assert!(told.contains("no credentials: the role of the container: refused"), "{told}");
    let absent = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/absent/token");
    let told = home.fails(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri), absent], &[]);
    assert!(told.contains("the role of the container: /absent/token: No such file"), "{told}");
}

/// The service of an instance, which gives the role to who shows its token.
fn instance() -> Service {
    Service::start(|request| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        match (path, request.contains(&format!("x-aws-ec2-metadata-token: {BEARER}\r\n"))) {
            ("/latest/api/token", _) if request.starts_with("PUT ") && request.contains("-ttl-seconds: ") => {
                (200, BEARER.to_owned())
            }
            ("/latest/meta-data/iam/security-credentials/", true) => (200, "of-tests".to_owned()),
            ("/latest/meta-data/iam/security-credentials/of-tests", true) => (200, keys(LATER)),
            _ => (401, format!("{request} is refused")),
        }
    })
}

/// The environment of a program on an instance whose service is at `url`.
fn at(url: &str) -> [(&str, &str); 2] {
    [("AWS_EC2_METADATA_SERVICE_ENDPOINT", url), ("AWS_EC2_METADATA_DISABLED", "false")]
}

#[test]
fn an_instance_has_a_role() {
    let Some(server) = RoleServer::of_role() else { return };
    let (home, service) = (Home::new(), instance());
    let endpoint = service.url();
    home.works(&server.url(), &at(&endpoint), &[]);
    assert_eq!(service.seen().len(), 6, "three requests for each program");
    server.assert_asked_by_role();
    // A named profile without keys is no reason not to ask.
    home.write(".aws/config", "[profile bare]\nregion = r\n");
    home.works(&server.url(), &at(&endpoint), &["--profile", "bare"]);
    let refusing = Service::start(|request| (401, request.to_owned()));
    let told = home.fails(&at(&refusing.url()), &[]);
    assert!(told.contains("no credentials: the role of the instance: refused"), "{told}");
    for absent in [Service::start(|_| (404, "no role".to_owned())).url(), "http://127.0.0.1:1".to_owned()] {
        let told = home.fails(&at(&absent), &[]);
        assert!(told.contains("no credentials: none were found: set AWS_ACCESS_KEY_ID"), "{told}");
    }
}

#[test]
fn a_token_of_web_identity_gives_a_role() {
    let Some(server) = RoleServer::of_role() else { return };
    let home = Home::new();
    let service = Service::start(|request| match request.contains(&format!("WebIdentityToken={BEARER}")) {
        true => (200, of_sts("AssumeRoleWithWebIdentity")),
        false => (403, refused_by_sts()),
    });
    let (token, wrong) = (home.write("token", BEARER), home.write("wrong", "wrongthatnolognames"));
    let sts = service.url();
    let of_file =
        |file| [("AWS_WEB_IDENTITY_TOKEN_FILE", file), ("AWS_ROLE_ARN", ROLE), ("AWS_ENDPOINT_URL_STS", &*sts)];
    home.works(&server.url(), &of_file(&token), &[]);
    let profile =
        format!("[profile web]\nrole_arn = {ROLE}\nweb_identity_token_file = {token}\nrole_session_name = mine\n");
    home.write(".aws/config", &profile);
    home.works(&server.url(), &[("AWS_ENDPOINT_URL_STS", &sts)], &["--profile", "web"]);
    server.assert_asked_by_role();
    let seen = service.seen();
    assert!(seen[0].contains("RoleSessionName=s4") && seen[3].contains("RoleSessionName=mine"), "{seen:?}");
    let told = home.fails(&of_file(&wrong), &[]);
    assert!(told.contains(&format!("no credentials: the role {ROLE} by web identity: AccessDenied")), "{told}");
    let told = home.fails(&of_file("/absent/token"), &[]);
    assert!(told.contains("/absent/token: No such file"), "{told}");
}

#[test]
fn a_profile_assumes_a_role_with_the_keys_of_another() {
    let Some(server) = RoleServer::of_role() else { return };
    let home = Home::new();
    let service =
        Service::start(|request| match (request.contains("ExternalId=refused"), is_by(request, "AKIDOFTESTS")) {
            (false, true) => (200, of_sts("AssumeRole")),
            // The second role in a row.
            (false, false) if is_by(request, ROLE_KEY) && request.contains(TOKEN) => (200, of_sts("AssumeRole")),
            _ => (403, refused_by_sts()),
        });
    home.write(".aws/credentials", &section("base", ACCESS_KEY, SECRET_KEY));
    let role = format!("role_arn = {ROLE}\n");
    home.write(
        ".aws/config",
        &[
            format!("[profile role]\n{role}source_profile = base\nregion = eu-west-1\nduration_seconds = 900\n"),
            format!("[profile second]\n{role}source_profile = role\n"),
            format!("[profile environment]\n{role}credential_source = Environment\n"),
            format!("[profile refused]\n{role}source_profile = base\nexternal_id = refused\n"),
            format!("[profile alone]\n{role}"),
            format!("[profile astray]\n{role}source_profile = nobody\n"),
            format!("[profile round]\n{role}source_profile = about\n[profile about]\n{role}source_profile = round\n"),
            format!("[profile typed]\n{role}source_profile = base\nmfa_serial = arn:aws:iam::1:mfa/me\n"),
            section("profile own", ACCESS_KEY, SECRET_KEY),
            format!("{role}source_profile = own\n"),
        ]
        .concat(),
    );
    let sts = service.url();
    let own =
        [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY), ("AWS_ENDPOINT_URL_STS", &*sts)];
    for profile in ["role", "second", "environment", "own"] {
        home.works(&server.url(), &own, &["--profile", profile]);
    }
    server.assert_asked_by_role();
    let first = &service.seen()[0];
    let wanted = [
        "Action=AssumeRole&",
        "DurationSeconds=900",
        "/eu-west-1/sts/aws4_request",
        "host: sts.eu-west-1.amazonaws.com",
    ];
    assert!(wanted.iter().all(|part| first.contains(part)), "{first}");
    for (profile, why) in [
        ("refused", format!("the role {ROLE} of the profile 'refused': AccessDenied")),
        ("alone", "the profile 'alone' needs source_profile, credential_source or web_identity_token_file".to_owned()),
        ("astray", "no profile 'nobody' in ".to_owned()),
        ("round", "more than 5 roles in a row".to_owned()),
        ("typed", "has an mfa_serial, and nobody is there to type a code".to_owned()),
    ] {
        let told = home.fails(&[("AWS_ENDPOINT_URL_STS", &sts)], &["--profile", profile]);
        assert!(told.contains(&why), "{profile}: {told}");
    }
}

#[test]
fn a_login_of_single_sign_on_gives_a_role() {
    let Some(server) = RoleServer::of_role() else { return };
    let home = Home::new();
    let service = Service::start(|request| match request.contains(&format!("x-amz-sso_bearer_token: {BEARER}\r\n")) {
        true => (
            200,
            format!(
                r#"{{"roleCredentials":{{"accessKeyId":"{ROLE_KEY}","secretAccessKey":"{ROLE_SECRET}","sessionToken":"{TOKEN}","expiration":4070908800000}}}}"#
            ),
        ),
        false => (401, request.to_owned()),
    });
    let role = "sso_account_id = 123456789012\nsso_role_name = of-tests\n";
    home.write(
        ".aws/config",
        &format!(
            "[profile url]\n{role}sso_start_url = https://example.org/start\nsso_region = us-east-1\n\
             [profile session]\n{role}sso_session = mine\n[sso-session mine]\nsso_region = eu-west-1\nsso_start_url = x\n\
             [profile other]\n{role}sso_session = other\n[sso-session other]\nsso_region = eu-west-1\n\
             [profile lost]\n{role}sso_session = lost\n"
        ),
    );
    let login = |name: &str, token: &str, expires: &str| {
        let file = format!(".aws/sso/cache/{}.json", sha1(name));
        home.write(&file, &format!(r#"{{"accessToken":"{token}","expiresAt":"{expires}"}}"#));
    };
    login("https://example.org/start", BEARER, LATER);
    login("mine", BEARER, LATER);
    let endpoint = format!("{}/federation/credentials", service.url());
    let at = [("AWS_SSO_ENDPOINT", &*endpoint)];
    for profile in ["url", "session"] {
        home.works(&server.url(), &at, &["--profile", profile]);
    }
    server.assert_asked_by_role();
    assert!(service.seen()[0].contains("role_name=of-tests&account_id=123456789012"), "{}", service.seen()[0]);
    for token in [None, Some((BEARER, "2001-01-01T00:00:00Z")), Some(("wrongthatnolognames", LATER))] {
        token.into_iter().for_each(|(token, expires)| login("other", token, expires));
        let told = home.fails(&at, &["--profile", "other"]);
        assert!(
            told.contains("single sign-on of the profile 'other': ") && told.contains("see 'aws sso login'"),
            "{told}"
        );
    }
    assert!(home.fails(&at, &["--profile", "lost"]).contains("has no sso_region"));
}

fn sha1(text: &str) -> String {
    let mut child = Command::new("sha1sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sha1sum");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    crate::harness::text(&child.wait_with_output().unwrap().stdout[..40])
}
