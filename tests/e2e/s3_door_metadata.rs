//! The door: the content type, other headers and metadata of objects.

use crate::door::Door;
use crate::harness::Cluster;

#[test]
fn metadata_is_kept_and_copied() {
    let cluster = Cluster::start(3);
    let Some(door) = Door::start(&cluster) else { return };
    let script = r#"
s3.create_bucket(Bucket='b')
kept = dict(ContentType='text/csv', CacheControl='no-store', ContentDisposition='inline', ContentEncoding='gzip', ContentLanguage='ga',
    Metadata={'a': 'one', 'b-c': 'two words'})
from datetime import datetime, timezone
s3.put_object(Bucket='b', Key='k', Body=b'x', Expires=datetime(2030, 1, 2, tzinfo=timezone.utc), **kept)
s3.put_object(Bucket='b', Key='large', Body=bytes(3_000_000), **kept)
s3.copy_object(Bucket='b', Key='copy', CopySource='b/k')
s3.copy_object(Bucket='b', Key='other', CopySource='b/k', MetadataDirective='REPLACE', ContentType='x/y', Metadata={'z': '1'})
for key in ['k', 'large', 'copy']:
    for ask in [s3.get_object, s3.head_object]:
        got = ask(Bucket='b', Key=key)
        assert {name: got[name] for name in kept} == kept, got
assert s3.head_object(Bucket='b', Key='k')['ResponseMetadata']['HTTPHeaders']['expires'] == 'Wed, 02 Jan 2030 00:00:00 GMT'
other = s3.head_object(Bucket='b', Key='other')
assert (other['ContentType'], other['Metadata']) == ('x/y', {'z': '1'}) and 'CacheControl' not in other, other
s3.put_object(Bucket='b', Key='none', Body=b'x')
assert s3.head_object(Bucket='b', Key='none')['ContentType'] == 'binary/octet-stream'
fails('MetadataTooLarge', s3.put_object, Bucket='b', Key='n', Body=b'x', Metadata={'a': 'x' * 2100})
is_absent('b', 'n')
"#;
    door.python(script, &[]);
}

/// As many names as fit, whichever way the node of the key gets them: beside a small key, with the file of a large one, or at the
/// begin of an upload in parts.
#[test]
fn a_hundred_names_and_empty_values_are_kept_with_every_kind_of_put() {
    let cluster = Cluster::start(3);
    let Some(door) = Door::start(&cluster) else { return };
    let script = r#"
import http.client
http.client._MAXHEADERS = 1000
s3.create_bucket(Bucket='b')
many = {f'a{n}': str(n % 10) for n in range(99)} | {'empty': ''}
s3.put_object(Bucket='b', Key='small', Body=b'x', Metadata=many)
s3.put_object(Bucket='b', Key='large', Body=bytes(3_000_000), Metadata=many)
upload = dict(Bucket='b', Key='parts', UploadId=s3.create_multipart_upload(Bucket='b', Key='parts', Metadata=many)['UploadId'])
parts = [dict(PartNumber=n, ETag=s3.upload_part(**upload, PartNumber=n, Body=b'x')['ETag']) for n in [1, 2]]
s3.complete_multipart_upload(**upload, MultipartUpload={'Parts': parts})
for key in ['small', 'large', 'parts']:
    s3.copy_object(Bucket='b', Key='copy_of_' + key, CopySource='b/' + key)
    for name in [key, 'copy_of_' + key]:
        for ask in [s3.get_object, s3.head_object]:
            got = ask(Bucket='b', Key=name)['Metadata']
            assert got == many, (name, set(many.items()) ^ set(got.items()))
"#;
    door.python(script, &[]);
}
