//! The door: who may use it, and who is refused.

use crate::door::Door;
use crate::harness::Cluster;

const SECRET: &str = "correct horse battery staple";

/// What a client without the secret, a browser and a misled client send.
const REFUSED: &str = r#"
def answer(request, **headers):
    headers = {'Host': host, 'Connection': 'close', **headers}
    with socket.create_connection(host.split(':')) as s:
        s.sendall((request + ' HTTP/1.1\r\n' + ''.join(f'{n}: {v}\r\n' for n, v in headers.items()) + '\r\n').encode())
        text = b''.join(iter(lambda: s.recv(65536), b'')).decode()
    assert '\r\nAccess-Control' not in text.title() and ' 30' not in text.split('\r\n')[0], text
    return text
for request in ['GET /', 'GET /b', 'GET /b/k', 'DELETE /b/k', 'PUT /b/n', 'GET /?x-amz-security-token=x']:
    text = answer(request)
    assert ' 403 ' in text and '<Code>AccessDenied' in text and re.search('<RequestId>[0-9A-F]{16}<', text), text
signed = s3.generate_presigned_url('get_object', Params={'Bucket': 'b', 'Key': 'k'}).removeprefix(url)
assert answer('GET ' + signed).endswith('hello')
assert ' 403 ' in answer('GET ' + signed, Origin='http://evil.example')
assert ' 403 ' in answer('OPTIONS ' + signed, Origin='http://evil.example')
for other in ['evil.example', 'evil.example:80', '127.0.0.1.evil.example']:
    assert ' 403 ' in answer('GET ' + signed, Host=other), other
assert ' 501 ' in answer('POST /b', **{'Content-Type': 'multipart/form-data; boundary=x', 'Content-Length': '0'})
for wrong in ['wrong', 's5', secret + 'x', secret[:-1]]:
    for version in ['s3v4', 's3']:
        bad = client(wrong, signature_version=version)
        fails('SignatureDoesNotMatch', bad.list_buckets)
        fails('SignatureDoesNotMatch', bad.get_object, Bucket='b', Key='k')
        fails('SignatureDoesNotMatch', bad.put_object, Bucket='b', Key='n', Body=b'x')
        fails('SignatureDoesNotMatch', bad.delete_object, Bucket='b', Key='k')
        fails('403', bad.head_object, Bucket='b', Key='k')
assert body('b', 'k') == b'hello'
is_absent('b', 'n')
"#;

/// Both versions of signatures, in headers and in URLs.
const SIGNED: &str = r#"
for version in ['s3v4', 's3']:
    signer = client(signature_version=version)
    key = version + '_by'
    assert [b['Name'] for b in signer.list_buckets()['Buckets']] == ['b']
    signer.put_object(Bucket='b', Key=key, Body=b'12345')
    assert signer.get_object(Bucket='b', Key=key)['Body'].read() == b'12345'
    assert names(signer.list_objects(Bucket='b', Prefix=key))[0] == [key]
    put = signer.generate_presigned_url('put_object', Params={'Bucket': 'b', 'Key': key + '+p%/ü'})
    urllib.request.urlopen(urllib.request.Request(put, data=b'67890', method='PUT', headers={'Content-Type': ''}))
    got = signer.generate_presigned_url('get_object', Params={'Bucket': 'b', 'Key': key + '+p%/ü'})
    assert urllib.request.urlopen(got).read() == b'67890'
    try:
        urllib.request.urlopen(got.replace('_by', '_bx'))
        raise AssertionError('another key by the same signature')
    except urllib.error.HTTPError as error:
        assert error.code == 403, error
    old = signer.generate_presigned_url('get_object', Params={'Bucket': 'b', 'Key': 'k'}, ExpiresIn=-5)
    try:
        urllib.request.urlopen(old)
        raise AssertionError('an expired URL')
    except urllib.error.HTTPError as error:
        assert error.code == 403 or version == 's3v4' and error.code == 400, error
"#;

#[test]
fn a_door_without_a_secret_still_wants_a_signature() {
    let cluster = Cluster::start(3);
    let Some(door) = Door::start(&cluster) else { return };
    cluster.put("s4://b/k", b"hello");
    door.python(REFUSED, &[]);
    door.python(SIGNED, &[]);
}

#[test]
fn the_secret_key_is_the_secret_of_the_cluster_and_is_shown_nowhere() {
    let home = tempfile::Builder::new().prefix("s4-test-").tempdir().unwrap();
    let path = home.path().join("secret");
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    let path = path.to_str().unwrap();
    let cluster = Cluster::with_options(3, &["--reserve", "0", "--secret", path]);
    let Some(door) = Door::with_options(&cluster, SECRET, &["--secret", path, "--host", "door.lan"]) else { return };
    let script = "s3.create_bucket(Bucket='b'); s3.put_object(Bucket='b', Key='k', Body=b'hello')";
    door.python(script, &[]);
    door.python(REFUSED, &[]);
    door.python(SIGNED, &[]);
    let named = r#"
import botocore.auth, botocore.awsrequest, botocore.credentials
request = botocore.awsrequest.AWSRequest('GET', f"http://door.lan:{host.split(':')[1]}/b/k")
request.context['payload_signing_enabled'] = True
botocore.auth.S3SigV4Auth(botocore.credentials.Credentials('x', secret), 's3', 'any').add_auth(request)
got = urllib.request.Request(url + '/b/k', headers={**dict(request.headers), 'Host': f"door.lan:{host.split(':')[1]}"})
assert urllib.request.urlopen(got).read() == b'hello'
"#;
    door.python(named, &[]);
    for shown in ["cmdline", "environ"] {
        let bytes = std::fs::read(format!("/proc/{}/{shown}", door.pid())).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(SECRET), "{shown}");
    }
    let log = std::fs::read_to_string(cluster.dir().join("door.log")).unwrap();
    assert!(!log.contains(SECRET) && !log.contains("Signature"), "{log}");
}

#[test]
fn what_s4_does_not_have_is_not_implemented() {
    let cluster = Cluster::start(3);
    let Some(door) = Door::start(&cluster) else { return };
    cluster.put("s4://b/k", b"hello");
    let script = r#"
no = 'NotImplemented'
fails(no, s3.get_bucket_acl, Bucket='b')
fails(no, s3.put_object_acl, Bucket='b', Key='k', ACL='public-read')
fails(no, s3.put_object_tagging, Bucket='b', Key='k', Tagging={'TagSet': []})
fails(no, s3.get_object_tagging, Bucket='b', Key='k')
fails(no, s3.get_bucket_policy, Bucket='b')
fails(no, s3.get_bucket_lifecycle_configuration, Bucket='b')
fails(no, s3.get_bucket_cors, Bucket='b')
fails(no, s3.put_bucket_versioning, Bucket='b', VersioningConfiguration={'Status': 'Enabled'})
fails(no, s3.put_object, Bucket='b', Key='n', Body=b'x', Tagging='a=b')
fails(no, s3.put_object, Bucket='b', Key='n', Body=b'x', ACL='public-read')
fails(no, s3.put_object, Bucket='b', Key='n', Body=b'x', ServerSideEncryption='AES256')
fails('NoSuchVersion', s3.get_object, Bucket='b', Key='k', VersionId='abc')
assert body('b', 'k', VersionId='null') == b'hello'
is_absent('b', 'n')
"#;
    door.python(script, &[]);
}
