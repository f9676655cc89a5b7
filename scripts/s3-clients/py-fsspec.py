"""s3fs for fsspec, which pandas and dask use for `s3://`. It asks for conditional puts by itself where a file is opened with mode "xb"."""
# needs: pip s3fs
import s3fs

from steps import *


def client(secret):
    return s3fs.S3FileSystem(endpoint_url=ENDPOINT, key=KEY, secret=secret, client_kwargs={"region_name": REGION}, skip_instance_cache=True)


s4 = client(SECRET)
got = WORK / "got"

with step("put"):
    s4.put(str(SMALL), f"{BUCKET}/a/small")
    stored("a/small", SMALL)
with step("get"):
    s4.get(f"{BUCKET}/a/small", str(got))
    same(got, SMALL)
with step("list"):
    equal(s4.ls(f"{BUCKET}/a"), [f"{BUCKET}/a/small"])
    equal(s4.find(BUCKET), [f"{BUCKET}/a/small"])
    equal(s4.info(f"{BUCKET}/a/small")["size"], SMALL.stat().st_size)
with step("range"):
    equal(s4.cat_file(f"{BUCKET}/a/small", start=5, end=15), SMALL.read_bytes()[5:15])
with step("parts"):
    with s4.open(f"{BUCKET}/a/large", "wb", block_size=5 << 20) as out:
        out.write(LARGE.read_bytes())
    stored("a/large", LARGE)
with step("copy"):
    s4.copy(f"{BUCKET}/a/small", f"{BUCKET}/b/small")
    stored("b/small", SMALL)
with step("move"):
    s4.mv(f"{BUCKET}/b/small", f"{BUCKET}/c/small")
    stored("c/small", SMALL)
with step("again"):
    s4.put(str(SMALL), f"{BUCKET}/a/small")
with refused("overwrite", TAKEN + ("written once",)):
    s4.pipe(f"{BUCKET}/a/small", OTHER.read_bytes())
with refused("wrong_secret", FORBIDDEN):
    client(WRONG).cat_file(f"{BUCKET}/a/small")
with step("delete"):
    s4.rm(f"{BUCKET}/a/small")
    equal(s4.ls(f"{BUCKET}/a", refresh=True), [f"{BUCKET}/a/large"])
with step("delete_all"):
    s4.rm(f"{BUCKET}/a", recursive=True)
    s4.rm(f"{BUCKET}/c", recursive=True)
    s4.invalidate_cache()
    equal(s4.find(BUCKET), [])
