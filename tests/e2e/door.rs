//! The door `s4-s3 serve` of a cluster, and Python scripts that use it with boto3. A drop ends the door.

use crate::harness::{Cluster, assert_no_crash, text};
use crate::programs::program;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;

/// What every script begins with. The first arguments are the URL of the door and the secret key.
const PRELUDE: &str = r#"
import base64, binascii, hashlib, hmac, io, json, os, re, socket, sys, threading, time, urllib.request, urllib.error
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
url, secret, args = sys.argv[1], sys.argv[2], sys.argv[3:]
host = url.removeprefix('http://')
def client(secret=secret, **config):
    return boto3.client('s3', endpoint_url=url, aws_access_key_id='anyone', aws_secret_access_key=secret,
        region_name='eu-north-1', config=Config(retries={'total_max_attempts': 1}, s3={'addressing_style': 'path'}, **config))
s3 = client()
def fails(code, call, **args):
    try:
        call(**args)
    except ClientError as error:
        got = error.response['Error']['Code']
        assert got == code, f'{got} in place of {code}: {error}'
        return error.response
    raise AssertionError(f'no error where {code} was expected')
def body(bucket, key, **args):
    return s3.get_object(Bucket=bucket, Key=key, **args)['Body'].read()
def is_absent(bucket, key):
    fails('NoSuchKey', s3.get_object, Bucket=bucket, Key=key)
def names(page):
    return [item['Key'] for item in page.get('Contents', [])], [item['Prefix'] for item in page.get('CommonPrefixes', [])]
"#;

/// Where scripts/test.sh installs modules for Python.
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python");

static HAS_BOTO3: LazyLock<bool> = LazyLock::new(|| {
    let found = Command::new("python3").args(["-c", "import boto3"]).env("PYTHONPATH", MODULES).output();
    found.is_ok_and(|output| output.status.success())
});

pub struct Door {
    child: Child,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    secret: String,
}

impl Door {
    /// A door for a cluster without a secret; `None`, with the reason on stderr, if boto3 is missing.
    pub fn start(cluster: &Cluster) -> Option<Self> {
        Self::with_options(cluster, "s4", &[])
    }

    /// Like [`Door::start`], for a cluster with this secret, with more options.
    pub fn with_options(cluster: &Cluster, secret: &str, options: &[&str]) -> Option<Self> {
        if !*HAS_BOTO3 {
            eprintln!("skipped: Python has no boto3; scripts/test.sh installs it");
            return None;
        }
        let mut command = Command::new(program("s4-s3"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--deadline", "2"]).args(options);
        let log = std::fs::File::create(cluster.dir().join("door.log")).unwrap();
        let mut child = command
            .env("S4_CONF_PATH", cluster.conf())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("s4-s3 starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("s4-s3: serving S3 on ").unwrap_or_else(|| panic!("it printed '{line}'"));
        Some(Self { url: url.to_owned(), child, secret: secret.to_owned() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the door with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// A Python script, with what every script begins with, and more arguments.
    pub fn script(&self, script: &str, args: &[&str]) -> Command {
        let mut command = Command::new("python3");
        command.args(["-c", &format!("{PRELUDE}\n{script}"), &self.url, &self.secret]).args(args);
        self.environment(&mut command);
        command
    }

    /// Runs a Python script, which must succeed. Returns its stdout.
    pub fn python(&self, script: &str, args: &[&str]) -> String {
        succeeded(self.script(script, args).output().expect("python3 runs"))
    }

    /// Runs the aws command, which must succeed. Returns its stdout.
    pub fn aws(&self, dir: &Path, args: &[&str]) -> String {
        let mut command = Command::new("python3");
        command.args(["-m", "awscli"]).args(args).current_dir(dir);
        self.environment(&mut command);
        succeeded(command.output().expect("python3 runs"))
    }

    fn environment(&self, command: &mut Command) {
        command.env("PYTHONPATH", MODULES).env("PYTHONWARNINGS", "ignore").stdin(Stdio::null());
        command.env("AWS_ENDPOINT_URL", &self.url).env("AWS_REGION", "us-east-1").env("AWS_MAX_ATTEMPTS", "1");
        command.env("AWS_ACCESS_KEY_ID", "s4").env("AWS_SECRET_ACCESS_KEY", &self.secret);
        command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    }
}

fn succeeded(output: Output) -> String {
    assert_no_crash(&output);
    assert!(output.status.success(), "{}: {}{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
