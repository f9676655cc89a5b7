"""Delta Lake (delta-rs). A commit is a put with `If-None-Match: *`, so that two writers cannot make the same version. A table grows, is
compacted and cleaned; what a write-once store refuses is a second checkpoint, which replaces the file `_last_checkpoint`: see `checkpoint`."""
# needs: pip deltalake
# needs: pip pyarrow
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from steps import *

TABLE = f"s3://{BUCKET}/table"


def options(secret):
    return {
        "AWS_ENDPOINT_URL": ENDPOINT,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": REGION,
        "AWS_ALLOW_HTTP": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
        "conditional_put": "etag",
        "max_retries": "1",
    }


s4 = options(SECRET)


def rows(numbers):
    return pa.table({"n": pa.array(numbers, pa.int64())})


def read():
    return sorted(DeltaTable(TABLE, storage_options=s4).to_pyarrow_table()["n"].to_pylist())


with step("put"):
    write_deltalake(TABLE, rows(range(1000)), storage_options=s4)
with step("get"):
    equal(read(), list(range(1000)))
with step("append"):
    write_deltalake(TABLE, rows(range(1000, 2000)), mode="append", storage_options=s4)
    equal(read(), list(range(2000)))
with step("replace"):  # the rows, by new files
    write_deltalake(TABLE, rows(range(10)), mode="overwrite", storage_options=s4)
    equal(read(), list(range(10)))
with step("history"):
    equal(DeltaTable(TABLE, version=1, storage_options=s4).to_pyarrow_table().num_rows, 2000)
with step("delete"):
    table = DeltaTable(TABLE, storage_options=s4)
    table.delete("n > 4")
    removed = table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert removed, "vacuum removed no file"
    equal(read(), list(range(5)))
with step("checkpoint"):
    DeltaTable(TABLE, storage_options=s4).create_checkpoint()
    write_deltalake(TABLE, rows([5]), mode="append", storage_options=s4)
    equal(read(), list(range(6)))
with refused("overwrite", TAKEN):
    DeltaTable(TABLE, storage_options=s4).create_checkpoint()
with refused("wrong_secret", FORBIDDEN):
    DeltaTable(TABLE, storage_options=options(WRONG))
lacks("list", "range", "parts", "copy")
