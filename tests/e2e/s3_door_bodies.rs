//! The door: bodies of puts in every form that clients send, and bodies that lie.

use crate::damage::Damage;
use crate::door::Door;
use crate::harness::{Cluster, eventually, peak_kib};
use crate::mounts::Mounted;
use std::sync::atomic::{AtomicBool, Ordering};

/// Requests with aws-chunked bodies. `put` sends a body as a whole and returns status, error code and body of the answer.
const CHUNKED: &str = r#"
import botocore.auth, botocore.awsrequest, botocore.credentials
def signed(key, form, headers):
    request = botocore.awsrequest.AWSRequest('PUT', url + '/b/' + key, headers={'x-amz-content-sha256': form, **headers})
    request.context['payload_signing_enabled'] = True
    auth = botocore.auth.S3SigV4Auth(botocore.credentials.Credentials('x', secret), 's3', 'any')
    auth.payload = lambda _: form
    auth.add_auth(request)
    return dict(request.headers)
def put(key, form, body, decoded, length=True, cut=False, **headers):
    headers = {n.replace('_', '-'): v for n, v in headers.items()}
    headers = {'content-encoding': 'aws-chunked', 'x-amz-decoded-content-length': str(decoded), **headers}
    made = body if callable(body) else lambda _: body
    headers = signed(key, form, headers)
    body = made(headers)
    with socket.create_connection(host.split(':')) as s:
        s.settimeout(30)
        headers |= {'Host': host, 'Connection': 'close'}
        headers |= {'Content-Length': str(len(body) + cut)} if length else {'Transfer-Encoding': 'chunked'}
        s.sendall((f'PUT /b/{key} HTTP/1.1\r\n' + ''.join(f'{n}: {v}\r\n' for n, v in headers.items()) + '\r\n').encode())
        s.sendall(body if length else b'%x\r\n%s\r\n0\r\n\r\n' % (len(body), body))
        if cut: s.shutdown(socket.SHUT_WR)
        try:
            answer = b''.join(iter(lambda: s.recv(65536), b'')).decode()
        except ConnectionError:
            answer = ''
    code = re.search('<Code>(.*?)</Code>', answer)
    return code[1] if code else int((answer or 'x 0').split()[1])
UNSIGNED, SIGNED, SIGNED_T = 'STREAMING-UNSIGNED-PAYLOAD-TRAILER', 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD', 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER'
def chunks(data, size, trailer=b''):
    pieces = [data[at:at + size] for at in range(0, len(data), size)]
    return b''.join(b'%x\r\n%s\r\n' % (len(p), p) for p in pieces) + b'0\r\n' + trailer + b'\r\n'
def sha(data): return hashlib.sha256(data).hexdigest()
def key_of(headers):
    date, k = headers['X-Amz-Date'], b'AWS4' + secret.encode()
    for word in [date[:8], 'any', 's3', 'aws4_request']:
        k = hmac.new(k, word.encode(), 'sha256').digest()
    return date, f'{date[:8]}/any/s3/aws4_request', k, headers['Authorization'].split('Signature=')[1]
def signed_chunks(data, size, trailer=None, spoil=lambda chunk, signature: signature):
    def make(headers):
        date, scope, k, last = key_of(headers)
        out = b''
        for at in [*range(0, len(data), size), len(data)]:
            piece = data[at:at + size]
            text = '\n'.join(['AWS4-HMAC-SHA256-PAYLOAD', date, scope, last, sha(b''), sha(piece)])
            last = hmac.new(k, text.encode(), 'sha256').hexdigest()
            out += b'%x;chunk-signature=%s\r\n%s' % (len(piece), spoil(at, last).encode(), piece) + (b'\r\n' if piece else b'')
        if trailer:
            text = '\n'.join(['AWS4-HMAC-SHA256-TRAILER', date, scope, last, sha(trailer + b'\n')])
            out += trailer + b'\r\nx-amz-trailer-signature:' + spoil('trailer', hmac.new(k, text.encode(), 'sha256').hexdigest()).encode() + b'\r\n'
        return out + b'\r\n'
    return make
data = os.urandom(700_000)
crc = base64.b64encode(binascii.crc32(data).to_bytes(4, 'big'))
trailer, wrong = b'x-amz-checksum-crc32:' + crc + b'\r\n', b'x-amz-checksum-crc32:AAAAAA==\r\n'
s3.create_bucket(Bucket='b')
def is_whole(key):
    got = s3.get_object(Bucket='b', Key=key)
    assert got['Body'].read() == data and 'aws-chunked' not in got.get('ContentEncoding', ''), (key, got)
"#;

#[test]
fn every_form_of_aws_chunked_is_taken_apart() {
    let cluster = Cluster::start(3);
    let Some(door) = Door::start(&cluster) else { return };
    let script = r#"
announced = {'x_amz_trailer': 'x-amz-checksum-crc32'}
assert put('u', UNSIGNED, chunks(data, 65536, trailer), len(data), **announced) == 200
assert put('one', UNSIGNED, chunks(data, 1 << 30, trailer), len(data), **announced) == 200
assert put('t', UNSIGNED, chunks(data, 10_000, trailer), len(data), length=False, **announced) == 200
assert put('s', SIGNED, signed_chunks(data, 65536), len(data)) == 200
assert put('st', SIGNED_T, signed_chunks(data, 100_000, trailer.strip()), len(data), **announced) == 200
assert put('empty', UNSIGNED, chunks(b'', 1, b'x-amz-checksum-crc32:AAAAAA==\r\n'), 0, **announced) == 200
for key in ['u', 'one', 't', 's', 'st']:
    is_whole(key)
assert body('b', 'empty') == b''
"#;
    door.python(&format!("{CHUNKED}{script}"), &[]);
}

#[test]
fn a_body_that_lies_stores_nothing() {
    let cluster = Cluster::start(3);
    let Some(door) = Door::start(&cluster) else { return };
    let script = r#"
announced = {'x_amz_trailer': 'x-amz-checksum-crc32'}
whole, signed_whole = chunks(data, 65536, trailer), signed_chunks(data, 65536)
other = lambda at: lambda chunk, signature: '0' * 64 if chunk == at else signature
n = len(data)
for want, form, body_, decoded, args in [
    ('BadDigest', UNSIGNED, chunks(data, 65536, wrong), n, announced),
    ('InvalidRequest', UNSIGNED, chunks(data, 65536), n, announced),
    ('IncompleteBody', UNSIGNED, whole, n + 1, announced),
    ('IncompleteBody', UNSIGNED, whole, n - 1, announced),
    ('IncompleteBody', UNSIGNED, whole[:300_000], n, announced),
    ('IncompleteBody', UNSIGNED, chunks(data, n)[:n + 9], n, announced),
    ('IncompleteBody', UNSIGNED, data, n, announced),
    ('InvalidRequest', UNSIGNED, whole, n, {}),
    ('SignatureDoesNotMatch', SIGNED, signed_chunks(data, 65536, spoil=other(0)), n, {}),
    ('SignatureDoesNotMatch', SIGNED, signed_chunks(data, 65536, spoil=other(65536 * 4)), n, {}),
    ('SignatureDoesNotMatch', SIGNED, signed_chunks(data, 65536, spoil=other(n)), n, {}),
    ('IncompleteBody', SIGNED, lambda h: signed_whole(h)[:400_000], n, {}),
    ('IncompleteBody', SIGNED, lambda h: signed_whole(h)[:-90], n, {}),
    ('IncompleteBody', SIGNED, whole, n, {}),
    ('SignatureDoesNotMatch', SIGNED_T, signed_chunks(data, 65536, trailer.strip(), other('trailer')), n, announced),
    ('BadDigest', SIGNED_T, signed_chunks(data, 65536, wrong.strip()), n, announced),
    ('InvalidRequest', SIGNED, lambda h: b'800001;chunk-signature=%s\r\n' % (b'0' * 64) + data, n, {}),
]:
    got = put('bad', form, body_, decoded, **args)
    assert got == want, (want, got, form, args)
    is_absent('b', 'bad')
for length in [True]:
    got = put('bad', UNSIGNED, whole[:300_000], n, cut=True, **announced)
    assert got in (0, 400, 'IncompleteBody'), got
is_absent('b', 'bad')
fails('BadDigest', s3.put_object, Bucket='b', Key='bad', Body=data, ContentMD5='1B2M2Y8AsgTpgAmY7PhCfg==')
fails('InvalidDigest', s3.put_object, Bucket='b', Key='bad', Body=data, ContentMD5='x')
for name in ['CRC32', 'CRC32C', 'CRC64NVME', 'SHA1', 'SHA256']:
    size = {'CRC32': 4, 'CRC32C': 4, 'CRC64NVME': 8, 'SHA1': 20, 'SHA256': 32}[name]
    fails('BadDigest', s3.put_object, Bucket='b', Key='bad', Body=data, **{'Checksum' + name: base64.b64encode(bytes(size)).decode()})
headers = signed('bad', sha(b'other'), {})
try:
    urllib.request.urlopen(urllib.request.Request(url + '/b/bad', data=data, method='PUT', headers=headers))
    raise AssertionError('another body than was signed')
except urllib.error.HTTPError as error:
    assert error.code == 400 and b'XAmzContentSHA256Mismatch' in error.read()
is_absent('b', 'bad')
assert names(s3.list_objects_v2(Bucket='b')) == ([], [])
good = {'ContentMD5': base64.b64encode(hashlib.md5(data).digest()).decode(), 'ChecksumSHA1': base64.b64encode(hashlib.sha1(data).digest()).decode()}
assert s3.put_object(Bucket='b', Key='good', Body=data, **good)['ChecksumSHA1'] == good['ChecksumSHA1']
is_whole('good')
"#;
    door.python(&format!("{CHUNKED}{script}"), &[]);
}

#[test]
fn no_byte_behind_a_damaged_one_is_got() {
    let cluster = Cluster::start(2);
    let Some(door) = Door::start(&cluster) else { return };
    let data: Vec<u8> = (0..5_000_000_u32).map(|n| (n / 13) as u8).collect();
    cluster.put("s4://b/1_bad", &data);
    Damage::Flip(3_000_000).apply(&cluster.data(1).join("b/1_bad"));
    let script = r#"
sound = 2_621_440
for asked, least in [('bytes=0-', 0), ('bytes=1000000-4999999', 1_000_000)]:
    stream, got = s3.get_object(Bucket='b', Key='1_bad', Range=asked)['Body'], b''
    try:
        while piece := stream.read(65536): got += piece
        raise AssertionError('all of it was sent')
    except AssertionError:
        raise
    except Exception:
        pass
    assert len(got) <= sound - least and got == bytes((n // 13) & 255 for n in range(least, least + len(got))), len(got)
fails('InternalError', s3.get_object, Bucket='b', Key='1_bad', Range='bytes=3000000-4000000')
assert body('b', '1_bad', Range='bytes=1048576-2621439') == bytes((n // 13) & 255 for n in range(1048576, 2621440))
"#;
    // From the file of a node of this machine, and over a connection.
    door.python(script, &[]);
    cluster.separate([0, 1]);
    door.python(script, &[]);
}

#[test]
fn memory_does_not_grow_with_a_body_or_a_chunk() {
    let cluster = Cluster::start(3);
    let Some(door) = Door::start(&cluster) else { return };
    // One chunk of half a gigabyte, as some clients send, and a client that does not read what it has asked for.
    let script = r#"
n, block = 1 << 29, os.urandom(1 << 20)
crc = 0
for _ in range(512): crc = binascii.crc32(block, crc)
headers = signed('big', UNSIGNED, {'x-amz-trailer': 'x-amz-checksum-crc32', 'x-amz-decoded-content-length': str(n)})
head, tail = b'%x\r\n' % n, b'\r\n0\r\nx-amz-checksum-crc32:%s\r\n\r\n' % base64.b64encode(crc.to_bytes(4, 'big'))
with socket.create_connection(host.split(':')) as s:
    headers |= {'Host': host, 'Connection': 'close', 'Content-Length': str(len(head) + n + len(tail))}
    s.sendall(('PUT /b/big HTTP/1.1\r\n' + ''.join(f'{n}: {v}\r\n' for n, v in headers.items()) + '\r\n').encode() + head)
    for _ in range(512): s.sendall(block)
    s.sendall(tail)
    assert b' 200 ' in s.recv(65536)
assert s3.head_object(Bucket='b', Key='big')['ContentLength'] == n
unread = [s3.get_object(Bucket='b', Key='big')['Body'] for _ in range(20)]
assert hashlib.sha256(body('b', 'big', Range='bytes=7-100000006')).digest() == hashlib.sha256((block * 97)[7:100000007]).digest()
"#;
    door.python(&format!("{CHUNKED}{script}"), &[]);
    assert!(peak_kib(door.pid()) < 150 * 1024, "{} KiB", peak_kib(door.pid()));
}

/// The door writes large keys into the data directory of a node of its machine, where nothing but the door looks at the space.
#[test]
fn a_put_beside_a_node_ends_where_its_reserve_begins() {
    let Some(disk) = Mounted::ext4(256 << 20) else { return };
    let cluster = Cluster::on_disk(&disk, &["--reserve", "100M"]);
    let Some(door) = Door::start(&cluster) else { return };
    // The disk has room for it, and the reserve has not.
    let script = r#"
s3.create_bucket(Bucket='b')
refused = fails('InsufficientStorage', s3.put_object, Bucket='b', Key='1_large', Body=bytes(int(args[0])))
assert refused['ResponseMetadata']['HTTPStatusCode'] == 507 and 'node 1' in refused['Error']['Message'], refused
is_absent('b', '1_large')
s3.put_object(Bucket='b', Key='1_fits', Body=bytes(20_000_000))
s3.delete_object(Bucket='b', Key='1_fits')
"#;
    let free = disk.free_bytes();
    let (len, has_ended) = ((free - (40 << 20)).to_string(), AtomicBool::new(false));
    let least = std::thread::scope(|scope| {
        let sampling = scope.spawn(|| {
            let mut least = free;
            while !has_ended.load(Ordering::Relaxed) {
                least = least.min(disk.free_bytes());
                std::thread::yield_now();
            }
            least
        });
        // Also after a panic, since the scope waits for its threads.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| door.python(script, &[&len])));
        has_ended.store(true, Ordering::Relaxed);
        let least = sampling.join().unwrap();
        ended.map(|_| least).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    assert!(least > 70 << 20, "the put went on below the reserve, to {least} bytes");
    eventually("nothing is left", || (disk.free_bytes() + (1 << 20) >= free).then_some(()));
}
