"""minio, MinIO's library for Python. It signs each chunk of a body (STREAMING-AWS4-HMAC-SHA256-PAYLOAD). It refuses bucket names of fewer than
three characters itself."""
# needs: pip minio
from minio import Minio
from minio.commonconfig import ComposeSource, CopySource
from minio.deleteobjects import DeleteObject

from steps import *


def client(secret):
    return Minio(HOST, access_key=KEY, secret_key=secret, region=REGION, secure=False)


s4 = client(SECRET)
got = WORK / "got"

with step("put"):
    s4.fput_object(BUCKET, "a/small", SMALL, content_type="text/csv", metadata={"origin": "here"})
    stored("a/small", SMALL)
with step("get"):
    s4.fget_object(BUCKET, "a/small", got)
    same(got, SMALL)
with step("head"):
    known = s4.stat_object(BUCKET, "a/small")
    equal((known.size, known.content_type, known.metadata["x-amz-meta-origin"]), (SMALL.stat().st_size, "text/csv", "here"))
with step("list"):
    equal([entry.object_name for entry in s4.list_objects(BUCKET, recursive=True)], ["a/small"])
    equal([entry.object_name for entry in s4.list_objects(BUCKET)], ["a/"])
with step("range"):
    equal(s4.get_object(BUCKET, "a/small", offset=5, length=10).read(), SMALL.read_bytes()[5:15])
with step("parts"):
    s4.fput_object(BUCKET, "a/large", LARGE, part_size=5 << 20)
    stored("a/large", LARGE)
with step("stream"):
    with LARGE.open("rb") as body:
        s4.put_object(BUCKET, "a/stream", body, length=-1, part_size=5 << 20)
    stored("a/stream", LARGE)
with step("copy"):
    s4.copy_object(BUCKET, "b/small", CopySource(BUCKET, "a/small"))
    stored("b/small", SMALL)
with step("copy_in_parts"):
    s4.compose_object(BUCKET, "b/large", [ComposeSource(BUCKET, "a/large"), ComposeSource(BUCKET, "a/small")])
    twice = WORK / "twice"
    twice.write_bytes(LARGE.read_bytes() + SMALL.read_bytes())
    stored("b/large", twice)
with step("again"):
    s4.fput_object(BUCKET, "a/small", SMALL, content_type="text/csv", metadata={"origin": "here"})
with refused("overwrite", TAKEN):
    s4.fput_object(BUCKET, "a/small", OTHER)
with refused("wrong_secret", FORBIDDEN):
    client(WRONG).get_object(BUCKET, "a/small")
with step("delete"):
    s4.remove_object(BUCKET, "a/small")
    equal([entry.object_name for entry in s4.list_objects(BUCKET, prefix="a/")], ["a/large", "a/stream"])
with step("delete_all"):
    names = [DeleteObject(entry.object_name) for entry in s4.list_objects(BUCKET, recursive=True)]
    equal(list(s4.remove_objects(BUCKET, names)), [])
    equal(list(s4.list_objects(BUCKET, recursive=True)), [])
