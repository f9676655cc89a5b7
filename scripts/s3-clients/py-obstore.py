"""obstore, the Rust crate object_store for Python, which DataFusion and Delta Lake use too."""
# needs: pip obstore
import obstore
from obstore.store import S3Store

from steps import *


def client(secret):
    return S3Store(
        BUCKET,
        endpoint=ENDPOINT,
        access_key_id=KEY,
        secret_access_key=secret,
        region=REGION,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
        retry_config={"max_retries": 1},
    )


s4 = client(SECRET)

with step("put"):
    obstore.put(s4, "a/small", SMALL, attributes={"Content-Type": "text/csv", "origin": "here"})
    stored("a/small", SMALL)
with step("get"):
    answer = obstore.get(s4, "a/small")
    equal(dict(answer.attributes), {"Content-Type": "text/csv", "origin": "here"})
    same(bytes(answer.bytes()), SMALL)
with step("head"):
    equal(obstore.head(s4, "a/small")["size"], SMALL.stat().st_size)
with step("list"):
    equal([entry["path"] for page in obstore.list(s4) for entry in page], ["a/small"])
    equal(list(obstore.list_with_delimiter(s4)["common_prefixes"]), ["a"])
with step("range"):
    equal(bytes(obstore.get_range(s4, "a/small", start=5, length=10)), SMALL.read_bytes()[5:15])
    several = obstore.get_ranges(s4, "a/small", starts=[0, 8000], lengths=[4, 4])
    equal([bytes(part) for part in several], [SMALL.read_bytes()[:4], SMALL.read_bytes()[8000:8004]])
with step("parts"):
    obstore.put(s4, "a/large", LARGE, use_multipart=True, chunk_size=5 << 20)
    stored("a/large", LARGE)
with step("copy"):
    obstore.copy(s4, "a/small", "b/small")
    stored("b/small", SMALL)
with step("move"):
    obstore.rename(s4, "b/small", "c/small")
    stored("c/small", SMALL)
with step("again"):
    obstore.put(s4, "a/small", SMALL)
with refused("overwrite", TAKEN):
    obstore.put(s4, "a/small", OTHER, mode="overwrite", use_multipart=False)
with refused("create", TAKEN):
    obstore.put(s4, "a/small", OTHER, mode="create", use_multipart=False)
with refused("wrong_secret", FORBIDDEN):
    obstore.get(client(WRONG), "a/small")
with step("delete"):
    obstore.delete(s4, "a/small")
    equal([entry["path"] for page in obstore.list(s4, "a") for entry in page], ["a/large"])
with step("delete_all"):
    obstore.delete(s4, [entry["path"] for page in obstore.list(s4) for entry in page])
    equal([page for page in obstore.list(s4)], [])
