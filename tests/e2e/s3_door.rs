//! The door: tools that speak S3 read and write the cluster.

use crate::door::Door;
use crate::harness::Cluster;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

#[test]
fn what_is_put_is_got_by_s3_and_by_s4() {
    let cluster = Cluster::start(3);
    let Some(door) = Door::start(&cluster) else { return };
    cluster.put("s4://b/by_s4", b"from s4");
    let script = r#"
assert [b['Name'] for b in s3.list_buckets()['Buckets']] == ['b']
assert body('b', 'by_s4') == b'from s4'
s3.create_bucket(Bucket='in')
s3.create_bucket(Bucket='in')
s3.head_bucket(Bucket='in')
assert s3.get_bucket_location(Bucket='in')['LocationConstraint'] is None
assert 'Status' not in s3.get_bucket_versioning(Bucket='in')
for n in [0, 1, 12_000, 600_000, 9_000_000]:
    data, key = os.urandom(n), f'd/{n}'
    put = s3.put_object(Bucket='in', Key=key, Body=data)
    got, head = s3.get_object(Bucket='in', Key=key), s3.head_object(Bucket='in', Key=key)
    assert got['Body'].read() == data, n
    listed, = s3.list_objects_v2(Bucket='in', Prefix=key)['Contents']
    assert re.fullmatch('"[0-9a-f]{16}-1"', put['ETag']), put['ETag']
    assert put['ETag'] == got['ETag'] == head['ETag'] == listed['ETag']
    assert got['LastModified'] == head['LastModified'] == listed['LastModified']
    assert got['ContentLength'] == head['ContentLength'] == listed['Size'] == n
    open(f'{args[0]}/{n}', 'wb').write(data)
"#;
    door.python(script, &[cluster.dir().to_str().unwrap()]);
    for n in [0, 1, 12_000, 600_000, 9_000_000] {
        let sent = std::fs::read(cluster.dir().join(n.to_string())).unwrap();
        assert_eq!(cluster.get(&format!("s4://in/d/{n}")), sent, "{n} bytes");
    }
}

#[test]
fn a_key_is_written_once_and_a_retry_succeeds() {
    let cluster = Cluster::start(3);
    let Some(door) = Door::start(&cluster) else { return };
    let script = r#"
s3.create_bucket(Bucket='b')
put = s3.put_object(Bucket='b', Key='k', Body=b'one')
assert s3.put_object(Bucket='b', Key='k', Body=b'one')['ETag'] == put['ETag']
for other in [b'two', b'longer', os.urandom(3_000_000)]:
    fails('PreconditionFailed', s3.put_object, Bucket='b', Key='k', Body=other)
fails('PreconditionFailed', s3.put_object, Bucket='b', Key='k', Body=b'one', IfNoneMatch='*')
fails('PreconditionFailed', s3.put_object, Bucket='b', Key='k', Body=b'one', IfMatch='"00"')
s3.put_object(Bucket='b', Key='k', Body=b'one', IfMatch=put['ETag'])
fails('NoSuchKey', s3.put_object, Bucket='b', Key='new', Body=b'one', IfMatch=put['ETag'])
s3.put_object(Bucket='b', Key='new', Body=b'one', IfNoneMatch='*')
assert body('b', 'k') == b'one'
fails('NoSuchBucket', s3.put_object, Bucket='absent', Key='k', Body=b'one')

# Of many writers at once, one wins, and the others see it.
won = []
def write(n):
    try:
        client().put_object(Bucket='b', Key='race', Body=bytes([n]) * 300_000, IfNoneMatch='*')
        won.append(n)
    except ClientError as error:
        assert error.response['Error']['Code'] == 'PreconditionFailed', error
threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
[t.start() for t in threads], [t.join() for t in threads]
assert len(won) == 1 and body('b', 'race') == bytes(won) * 300_000, won
"#;
    door.python(script, &[]);
}

#[test]
fn ranges_and_conditions_are_those_of_http() {
    let cluster = Cluster::start(3);
    let Some(door) = Door::start(&cluster) else { return };
    let script = r#"
s3.create_bucket(Bucket='b')
data = os.urandom(2_500_000)
etag = s3.put_object(Bucket='b', Key='k', Body=data)['ETag']
s3.put_object(Bucket='b', Key='empty', Body=b'')
size = len(data)
for asked, first, end in [('0-0', 0, 1), ('5-9', 5, 10), ('0-', 0, size), (f'0-{size - 1}', 0, size), (f'{size - 1}-', size - 1, size),
        ('-7', size - 7, size), (f'-{size + 9}', 0, size), ('524287-1048577', 524287, 1048578), (f'3-{size * 2}', 3, size)]:
    for ask in [s3.get_object, s3.head_object]:
        got = ask(Bucket='b', Key='k', Range=f'bytes={asked}', ChecksumMode='ENABLED')
        assert got['ResponseMetadata']['HTTPStatusCode'] == 206, asked
        assert got['ContentRange'] == f'bytes {first}-{end - 1}/{size}' and got['ContentLength'] == end - first, got
        assert not any(name.startswith('Checksum') for name in got), got
        assert 'Body' not in got or got['Body'].read() == data[first:end], asked
refused = fails('InvalidRange', s3.get_object, Bucket='b', Key='k', Range=f'bytes={size}-')
assert refused['ResponseMetadata']['HTTPHeaders']['content-range'] == f'bytes */{size}'
fails('InvalidRange', s3.get_object, Bucket='b', Key='empty', Range='bytes=0-0')
assert s3.get_object(Bucket='b', Key='k', PartNumber=1)['PartsCount'] == 1

s3.get_object(Bucket='b', Key='k', IfMatch=etag)
fails('PreconditionFailed', s3.get_object, Bucket='b', Key='k', IfMatch='"ab"')
kept = fails('304', s3.get_object, Bucket='b', Key='k', IfNoneMatch=etag)
assert kept['ResponseMetadata']['HTTPHeaders']['etag'] == etag
s3.get_object(Bucket='b', Key='k', IfNoneMatch='"ab"')
at = s3.head_object(Bucket='b', Key='k')['LastModified']
fails('304', s3.get_object, Bucket='b', Key='k', IfModifiedSince=at)
s3.get_object(Bucket='b', Key='k', IfUnmodifiedSince=at)
from datetime import timedelta
s3.get_object(Bucket='b', Key='k', IfModifiedSince=at - timedelta(seconds=2))
fails('PreconditionFailed', s3.get_object, Bucket='b', Key='k', IfUnmodifiedSince=at - timedelta(seconds=2))
assert s3.get_object(Bucket='b', Key='k', ResponseContentType='text/x')['ContentType'] == 'text/x'
assert s3.get_object_attributes(Bucket='b', Key='k', ObjectAttributes=['ObjectSize'])['ObjectSize'] == size
"#;
    door.python(script, &[]);
}

#[test]
fn odd_names_are_kept_or_refused_with_the_rule() {
    let cluster = Cluster::start(3);
    let Some(door) = Door::start(&cluster) else { return };
    let script = r#"
s3.create_bucket(Bucket='b')
good = ['a+b', 'a%20b', '100%', 'ü/日本語', "q'\"&<>", 'a=b&c?d#e', '~.-_!*()', '...', 'x' * 255]
for key in good:
    s3.put_object(Bucket='b', Key=key, Body=key.encode())
    assert body('b', key).decode() == key
    s3.copy_object(Bucket='b', Key='copy/' + key, CopySource={'Bucket': 'b', 'Key': key})
    assert body('b', 'copy/' + key).decode() == key
assert sorted(names(s3.list_objects_v2(Bucket='b', Prefix='copy/'))[0]) == sorted('copy/' + key for key in good)
s3.delete_objects(Bucket='b', Delete={'Objects': [{'Key': 'copy/' + key} for key in good]})
assert sorted(names(s3.list_objects(Bucket='b'))[0]) == sorted(good)
for key, rule in [('a b', 'whitespace'), ('a//b', 'empty'), ('../x', "'..'"), ('a/./b', "'.'"), ('d//', 'empty'), ('x' * 256, '255'),
        ('tab\tx', 'control')]:
    refused = fails('InvalidArgument', s3.put_object, Bucket='b', Key=key, Body=b'x')
    assert rule in refused['Error']['Message'], refused['Error']
    fails('404', s3.head_object, Bucket='b', Key=key)
    s3.delete_object(Bucket='b', Key=key)
    assert names(s3.list_objects_v2(Bucket='b', Prefix=key))[0] == []
assert sorted(names(s3.list_objects(Bucket='b'))[0]) == sorted(good)
for bucket in ['_b', '.b']:
    try:
        s3.create_bucket(Bucket=bucket)
        raise AssertionError(bucket)
    except ClientError as error:
        assert error.response['Error']['Code'] == 'InvalidBucketName', error
    except Exception as error:
        assert 'bucket name' in str(error).lower(), error
"#;
    door.python(script, &[]);
}

#[test]
fn a_name_with_a_slash_at_its_end_is_a_directory() {
    let cluster = Cluster::start(3);
    let Some(door) = Door::start(&cluster) else { return };
    let script = r#"
s3.create_bucket(Bucket='b')
s3.put_object(Bucket='b', Key='d/', Body=b'')
s3.put_object(Bucket='b', Key='d/', Body=b'')
fails('InvalidArgument', s3.put_object, Bucket='b', Key='e/', Body=b'x')
assert s3.head_object(Bucket='b', Key='d/')['ContentLength'] == 0
assert body('b', 'd/') == b''
fails('404', s3.head_object, Bucket='b', Key='d')
assert names(s3.list_objects_v2(Bucket='b', Prefix='d/'))[0] == ['d/']
assert names(s3.list_objects_v2(Bucket='b', Delimiter='/'))[1] == ['d/']
s3.put_object(Bucket='b', Key='d/k', Body=b'x')
for delimiter in ['', '/']:
    assert names(s3.list_objects_v2(Bucket='b', Prefix='d/', Delimiter=delimiter)) == (['d/', 'd/k'], [])
assert names(s3.list_objects_v2(Bucket='b', Prefix='d/', StartAfter='d/'))[0] == ['d/k']
s3.put_object(Bucket='b', Key='x/y/z/k', Body=b'x')
s3.put_object(Bucket='b', Key='x/y/e/', Body=b'')
assert names(s3.list_objects_v2(Bucket='b', Prefix='x'))[0] == ['x/y/e/', 'x/y/z/k']
# As Spark removes a tree: what a listing of all has.
for key in names(s3.list_objects_v2(Bucket='b', Prefix='x/'))[0]:
    s3.delete_object(Bucket='b', Key=key)
fails('404', s3.head_object, Bucket='b', Key='x/')
fails('InvalidArgument', s3.put_object, Bucket='b', Key='d', Body=b'x')
fails('InvalidArgument', s3.put_object, Bucket='b', Key='d/k/', Body=b'')
s3.delete_object(Bucket='b', Key='d/')
assert body('b', 'd/k') == b'x'
s3.delete_object(Bucket='b', Key='d/k')
s3.delete_object(Bucket='b', Key='d/')
fails('404', s3.head_object, Bucket='b', Key='d/')
s3.put_object(Bucket='b', Key='e/f/', Body=b'')
s3.put_object(Bucket='b', Key='k', Body=b'x')
fails('BucketNotEmpty', s3.delete_bucket, Bucket='b')
s3.delete_object(Bucket='b', Key='k')
s3.delete_bucket(Bucket='b')
fails('NoSuchBucket', s3.delete_bucket, Bucket='b')
fails('404', s3.head_bucket, Bucket='b')
"#;
    door.python(script, &[]);
}

#[test]
fn copies_and_deletes() {
    let cluster = Cluster::start(3);
    let Some(door) = Door::start(&cluster) else { return };
    let script = r#"
s3.create_bucket(Bucket='in'), s3.create_bucket(Bucket='B_2')
data = os.urandom(1_300_000)
etag = s3.put_object(Bucket='in', Key='k', Body=data, Metadata={'a': 'b'})['ETag']
copied = s3.copy_object(Bucket='B_2', Key='d/c', CopySource={'Bucket': 'in', 'Key': 'k'})
got = body('B_2', 'd/c')
assert copied['CopyObjectResult']['ETag'] == etag and got == data, (copied, etag, len(got), len(data))
assert s3.head_object(Bucket='B_2', Key='d/c')['Metadata'] == {'a': 'b'}
s3.copy_object(Bucket='in', Key='back', CopySource={'Bucket': 'B_2', 'Key': 'd/c'})
s3.copy_object(Bucket='in', Key='back', CopySource={'Bucket': 'B_2', 'Key': 'd/c'})
s3.put_object(Bucket='in', Key='other', Body=b'x')
fails('PreconditionFailed', s3.copy_object, Bucket='in', Key='other', CopySource={'Bucket': 'in', 'Key': 'k'})
fails('PreconditionFailed', s3.copy_object, Bucket='in', Key='n', CopySource={'Bucket': 'in', 'Key': 'k'}, CopySourceIfMatch='"ab"')
fails('NoSuchKey', s3.copy_object, Bucket='in', Key='n', CopySource={'Bucket': 'in', 'Key': 'absent'})
fails('NoSuchBucket', s3.copy_object, Bucket='in', Key='n', CopySource={'Bucket': 'absent', 'Key': 'absent'})
fails('PreconditionFailed', s3.copy_object, Bucket='in', Key='k', CopySource={'Bucket': 'in', 'Key': 'k'}, Metadata={'a': 'b'}, MetadataDirective='REPLACE')
assert body('in', 'other') == b'x' and body('in', 'k') == data
is_absent('in', 'n')

fails('PreconditionFailed', s3.delete_object, Bucket='in', Key='k', IfMatch='"ab"')
wrong = s3.delete_objects(Bucket='in', Delete={'Objects': [{'Key': 'k', 'Size': 1}, {'Key': 'k', 'ETag': '"ab"'}, {'Key': 'absent', 'Size': 1}]})
assert [e['Code'] for e in wrong['Errors']] == ['PreconditionFailed'] * 2 and len(wrong['Deleted']) == 1, wrong
done = s3.delete_objects(Bucket='in', Delete={'Objects': [{'Key': k} for k in ['k', 'absent', 'a b', 'other']]})
assert [d['Key'] for d in done['Deleted']] == ['k', 'absent', 'a b', 'other'] and 'Errors' not in done, done
quiet = s3.delete_objects(Bucket='in', Delete={'Quiet': True, 'Objects': [{'Key': 'back'}]})
assert 'Deleted' not in quiet, quiet
assert names(s3.list_objects_v2(Bucket='in')) == ([], [])
s3.delete_object(Bucket='in', Key='k')
fails('NoSuchBucket', s3.delete_object, Bucket='absent', Key='k')
"#;
    door.python(script, &[]);
}

#[test]
fn a_listing_in_pages_is_the_listing() {
    let cluster = Cluster::start(3);
    let Some(door) = Door::start(&cluster) else { return };
    let dir = cluster.dir().join("tree");
    let names: Vec<String> = (0..3000)
        .map(|n| match n % 4 {
            0 => format!("{n:04}_top"),
            1 => format!("d{}/{n:04}", n % 100),
            2 => format!("d{}-x/y{}/{n:04}", n % 10, n % 6),
            _ => format!("a-b+{n}"),
        })
        .collect();
    for name in &names {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, name).unwrap();
    }
    cluster.ok(&["cp", "-r", dir.to_str().unwrap(), "s4://b/"]);
    let script = r#"
made = ['d3-x/made/', 'mm/', 'mm/n/', 'mm/n/o/p/']
for name in made:
    s3.put_object(Bucket='b', Key=name, Body=b'')
s3.put_object(Bucket='b', Key='mm/n/k', Body=b'x')
every = sorted([line.strip() for line in open(args[0])] + made + ['mm/n/k'], key=str.encode)
def expected(prefix, delimiter, after=''):
    keys, prefixes = [], []
    for key in every:
        if key.startswith(prefix):
            at = key.find(delimiter, len(prefix)) if delimiter else -1
            if at < 0:
                keys += [key] if key > after else []
            elif key[:at + len(delimiter)] not in prefixes and key > after:
                prefixes.append(key[:at + len(delimiter)])
    return keys, prefixes
def pages(operation, **ask):
    keys, prefixes, count = [], [], 0
    for page in s3.get_paginator(operation).paginate(Bucket='b', **ask):
        k, p = names(page)
        assert page.get('KeyCount', len(k) + len(p)) == len(k) + len(p) <= 1000
        keys, prefixes, count = keys + k, prefixes + p, count + 1
    return keys, prefixes, count
for operation in ['list_objects_v2', 'list_objects']:
    for size in [1000, 333, 7]:
        for prefix, delimiter in [('', ''), ('', '/'), ('d', '/'), ('d1', ''), ('d1/', '/'), ('d2-x/', '/'), ('d3-x/', '/'), ('mm/', '/'), ('mm/n/', ''), ('', '-'), ('a-b', '+'), ('zz', '')]:
            if size == 7 and not delimiter: continue
            got = pages(operation, Prefix=prefix, Delimiter=delimiter, PaginationConfig={'PageSize': size})
            want = expected(prefix, delimiter)
            assert got[:2] == want, (operation, size, prefix, delimiter, got[2])
            assert got[2] == max(1, -(-(len(want[0]) + len(want[1])) // size)), got[2]
versions = [v['Key'] for page in s3.get_paginator('list_object_versions').paginate(Bucket='b') for v in page['Versions']]
assert versions == every
for after in ['1', 'd1', 'd1/', 'zz', every[1500]]:
    got = names(s3.list_objects_v2(Bucket='b', StartAfter=after))
    assert got[0] == expected('', '', after)[0][:1000], after
# A page from a door that has not seen the ones before is the same.
first = s3.list_objects_v2(Bucket='b', MaxKeys=10, Delimiter='/')
token = first['NextContinuationToken']
[one, two] = [names(s3.list_objects_v2(Bucket='b', MaxKeys=10, Delimiter='/', ContinuationToken=token)) for _ in range(2)]
assert one == two and len(one[0] + one[1]) == 10
assert s3.list_objects_v2(Bucket='b', MaxKeys=0)['IsTruncated'] == False
fails('NoSuchBucket', s3.list_objects_v2, Bucket='absent')
fails('InvalidArgument', s3.list_objects_v2, Bucket='b', MaxKeys=-1)
"#;
    let list = cluster.dir().join("names");
    std::fs::write(&list, names.join("\n")).unwrap();
    door.python(script, &[list.to_str().unwrap()]);
}

#[test]
fn the_aws_command_works_as_on_amazon() {
    let cluster = Cluster::start(3);
    let Some(door) = Door::start(&cluster) else { return };
    let dir = cluster.dir();
    let tree = dir.join("tree/sub");
    std::fs::create_dir_all(&tree).unwrap();
    for n in 0..20 {
        std::fs::write(tree.join(format!("{n:03}")), vec![n; 1000 * usize::from(n)]).unwrap();
    }
    door.aws(dir, &["s3", "mb", "s3://b"]);
    door.aws(dir, &["s3", "cp", "--recursive", "tree", "s3://b/t"]);
    assert!(door.aws(dir, &["s3", "ls", "s3://b/t/"]).contains("PRE sub/"));
    assert_eq!(door.aws(dir, &["s3", "ls", "--recursive", "s3://b/"]).lines().count(), 20);
    door.aws(dir, &["s3", "sync", "s3://b/t", "back"]);
    let same = Command::new("diff").args(["-r", "tree", "back"]).current_dir(dir).status().unwrap();
    assert!(same.success());
    assert_eq!(door.aws(dir, &["s3", "sync", "tree", "s3://b/t"]), "", "nothing has changed");
    door.aws(dir, &["s3", "mv", "s3://b/t/sub/001", "s3://b/moved"]);
    door.aws(dir, &["s3", "rm", "--recursive", "s3://b/"]);
    door.aws(dir, &["s3", "rb", "s3://b"]);
    assert!(cluster.fails(1, &["ls"]).contains("nothing found"));
}

#[test]
fn a_key_is_uploaded_in_parts() {
    let cluster = Cluster::start(3);
    let Some(door) = Door::start(&cluster) else { return };
    let script = r#"
s3.create_bucket(Bucket='in')
data = os.urandom(23_000_000)
from boto3.s3.transfer import TransferConfig
s3.upload_fileobj(io.BytesIO(data), 'in', 'k', Config=TransferConfig(multipart_threshold=1 << 20, multipart_chunksize=5 << 20),
    ExtraArgs={'Metadata': {'a': 'b'}, 'ContentType': 'x/y'})
head = s3.head_object(Bucket='in', Key='k')
assert head['ContentLength'] == len(data) and head['Metadata'] == {'a': 'b'} and head['ContentType'] == 'x/y', head
assert body('in', 'k') == data
back = io.BytesIO()
s3.download_fileobj('in', 'k', back, Config=TransferConfig(multipart_threshold=1 << 20, multipart_chunksize=3 << 20))
assert back.getvalue() == data

begin = lambda key: s3.create_multipart_upload(Bucket='in', Key=key)['UploadId']
def part(key, id, n, bytes): return {'PartNumber': n, 'ETag': s3.upload_part(Bucket='in', Key=key, UploadId=id, PartNumber=n, Body=bytes)['ETag']}
def complete(key, id, parts, **args): return s3.complete_multipart_upload(Bucket='in', Key=key, UploadId=id, MultipartUpload={'Parts': parts}, **args)
id = begin('m')
parts = [part('m', id, n, bytes([n % 256]) * 200_000) for n in [7, 2, 900]]
parts[1] = part('m', id, 2, b'again')
parts.sort(key=lambda part: part['PartNumber'])
assert [p['PartNumber'] for p in s3.list_parts(Bucket='in', Key='m', UploadId=id)['Parts']] == [2, 7, 900]
page = s3.list_parts(Bucket='in', Key='m', UploadId=id, MaxParts=2)
assert page['IsTruncated'] and page['NextPartNumberMarker'] == 7, page
assert [u['UploadId'] for u in s3.list_multipart_uploads(Bucket='in')['Uploads']] == [id]
is_absent('in', 'm')
fails('BadDigest', s3.upload_part, Bucket='in', Key='m', UploadId=id, PartNumber=3, Body=b'x', ContentMD5='1B2M2Y8AsgTpgAmY7PhCfg==')
fails('InvalidPartOrder', complete, key='m', id=id, parts=parts[::-1])
fails('InvalidPart', complete, key='m', id=id, parts=[{**parts[0], 'ETag': '"0123456789abcdef-1"'}])
fails('InvalidPart', complete, key='m', id=id, parts=[{**parts[0], 'PartNumber': 3}])
etag = complete('m', id, parts)['ETag']
assert complete('m', id, parts)['ETag'] == etag == s3.head_object(Bucket='in', Key='m')['ETag']
assert body('in', 'm') == b'again' + b'\x07' * 200_000 + bytes([900 % 256]) * 200_000
# The key is taken, by other bytes.
id = begin('m')
fails('PreconditionFailed', complete, key='m', id=id, parts=[part('m', id, 1, b'other')])
fails('PreconditionFailed', complete, key='m', id=id, parts=[part('m', id, 1, b'other')], IfNoneMatch='*')
s3.abort_multipart_upload(Bucket='in', Key='m', UploadId=id)
for call in [lambda: part('m', id, 1, b'x'), lambda: complete('m', id, [{'PartNumber': 1, 'ETag': '"0123456789abcdef-1"'}]),
        lambda: s3.list_parts(Bucket='in', Key='m', UploadId='x'), lambda: s3.abort_multipart_upload(Bucket='in', Key='m', UploadId=id)]:
    fails('NoSuchUpload', call)
id = begin('copied')
copied = [{'PartNumber': n, 'ETag': s3.upload_part_copy(Bucket='in', Key='copied', UploadId=id, PartNumber=n, CopySource={'Bucket': 'in', 'Key': 'k'},
    CopySourceRange=f'bytes={first}-{last}')['CopyPartResult']['ETag']} for n, first, last in [(1, 0, 5_999_999), (2, 6_000_000, len(data) - 1)]]
complete('copied', id, copied)
assert body('in', 'copied') == data and 'Uploads' not in s3.list_multipart_uploads(Bucket='in')
"#;
    door.python(script, &[]);
}

#[test]
fn a_dead_node_is_an_error_and_never_a_partial_list() {
    let mut cluster = Cluster::start(3);
    let Some(door) = Door::start(&cluster) else { return };
    for node in 0..3 {
        cluster.put(&format!("s4://b/{node}_k"), b"x");
    }
    cluster.kill_node(1);
    let script = r#"
fails('ServiceUnavailable', s3.list_objects_v2, Bucket='b')
fails('ServiceUnavailable', s3.get_object, Bucket='b', Key='1_k')
fails('ServiceUnavailable', s3.put_object, Bucket='b', Key='1_new', Body=b'x')
assert body('b', '0_k') == b'x'
s3.put_object(Bucket='b', Key='2_new', Body=b'x')
"#;
    door.python(script, &[]);
    cluster.start_node(1);
    door.python("assert names(s3.list_objects_v2(Bucket='b'))[0] == ['0_k', '1_k', '2_k', '2_new']", &[]);
}

#[test]
fn a_door_that_is_killed_in_the_middle_of_a_put_leaves_nothing() {
    let cluster = Cluster::start(3);
    let Some(mut door) = Door::start(&cluster) else { return };
    cluster.put("s4://b/other", b"x");
    let url = door.python("print(s3.generate_presigned_url('put_object', Params={'Bucket': 'b', 'Key': 'k'}))", &[]);
    let send = r#"
from http.client import HTTPConnection
connection = HTTPConnection(host)
connection.putrequest('PUT', args[0].removeprefix(url))
connection.putheader('Content-Length', str(1 << 30))
connection.endheaders()
try:
    for n in range(16384):
        connection.send(bytes(65536))
        if n == 200: print('sending', flush=True)
except OSError:
    print('broken')
"#;
    let mut sender = door.script(send, &[url.trim()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(sender.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "sending");
    door.kill();
    assert_eq!(said.next().unwrap().unwrap(), "broken");
    sender.wait().unwrap();
    assert_eq!(cluster.ok(&["ls", "-r", "s4://b/"]).lines().count(), 1);
    let door = Door::start(&cluster).expect("boto3 was there");
    door.python("s3.put_object(Bucket='b', Key='k', Body=b'again')", &[]);
}
