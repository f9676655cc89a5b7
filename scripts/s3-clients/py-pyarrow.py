"""pyarrow: its file system, and a data set in partitions. A partitioned data set has the same file name in each directory, and a key's node
follows from its file name alone: `basename_template` makes the names differ, so that all nodes get some."""
# needs: pip pyarrow
import uuid

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.fs import FileSelector, FileType, S3FileSystem

from steps import *


def client(secret):
    return S3FileSystem(access_key=KEY, secret_key=secret, region=REGION, endpoint_override=HOST, scheme="http")


s4 = client(SECRET)


def write(path, file):
    with s4.open_output_stream(f"{BUCKET}/{path}") as out:
        out.write(file.read_bytes())


with step("put"):
    write("a/small", SMALL)
    stored("a/small", SMALL)
with step("get"):
    same(s4.open_input_stream(f"{BUCKET}/a/small").read(), SMALL)
with step("list"):
    found = s4.get_file_info(FileSelector(f"{BUCKET}/", recursive=True))
    equal([(entry.path, entry.type) for entry in found if entry.type == FileType.File], [(f"{BUCKET}/a/small", FileType.File)])
    equal(s4.get_file_info(f"{BUCKET}/none").type, FileType.NotFound)
with step("range"):
    equal(s4.open_input_file(f"{BUCKET}/a/small").read_at(10, 5), SMALL.read_bytes()[5:15])
with step("parts"):
    write("a/large", LARGE)
    stored("a/large", LARGE)
with step("copy"):
    s4.copy_file(f"{BUCKET}/a/small", f"{BUCKET}/b/small")
    stored("b/small", SMALL)
with step("move"):
    s4.move(f"{BUCKET}/b/small", f"{BUCKET}/c/small")
    stored("c/small", SMALL)
with step("directory"):
    s4.create_dir(f"{BUCKET}/d/e")
    equal(s4.get_file_info(f"{BUCKET}/d/e").type, FileType.Directory)
with step("dataset"):
    table = pa.table({"g": [n % 4 for n in range(100_000)], "n": range(100_000)})
    ds.write_dataset(
        table,
        f"{BUCKET}/set",
        filesystem=s4,
        format="parquet",
        partitioning=["g"],
        partitioning_flavor="hive",
        basename_template=f"{uuid.uuid4()}-{{i}}.parquet",
        existing_data_behavior="overwrite_or_ignore",
    )
    read = ds.dataset(f"{BUCKET}/set", filesystem=s4, partitioning="hive")
    equal(read.count_rows(filter=ds.field("g") == 3), 25_000)
    equal(sum(read.to_table(columns=["n"])["n"].to_pylist()), sum(range(100_000)))
with step("again"):
    write("a/small", SMALL)
with refused("overwrite", TAKEN):
    write("a/small", OTHER)
with refused("wrong_secret", FORBIDDEN):
    client(WRONG).open_input_stream(f"{BUCKET}/a/small").read()
with step("delete"):
    s4.delete_file(f"{BUCKET}/a/small")
    equal(s4.get_file_info(f"{BUCKET}/a/small").type, FileType.NotFound)
with step("delete_all"):
    s4.delete_dir_contents(BUCKET)
    equal(s4.get_file_info(FileSelector(BUCKET, recursive=True)), [])
