"""DuckDB. Without network, its extension httpfs comes from PyPI; elsewhere `INSTALL httpfs` fetches it. Path style must be said. A partitioned
data set has the same file name in each directory, and a key's node follows from its file name alone: `FILENAME_PATTERN` makes the names
differ, so that all nodes get some."""
# needs: pip duckdb
# needs: pip duckdb-extensions
# needs: pip duckdb-extension-httpfs
import duckdb
from duckdb_extensions import import_extension

from steps import *

import_extension("httpfs")


def client(secret):
    connection = duckdb.connect()
    connection.execute("LOAD httpfs")
    connection.execute(
        f"CREATE SECRET (TYPE s3, KEY_ID '{KEY}', SECRET '{secret}', REGION '{REGION}', ENDPOINT '{HOST}', URL_STYLE 'path', USE_SSL false)"
    )
    return connection


s4 = client(SECRET)


def one(query):
    return s4.sql(query).fetchone()[0]


with step("put"):
    s4.execute(f"COPY (FROM range(1000) t(n)) TO 's3://{BUCKET}/a/000.parquet'")
with step("get"):
    equal(one(f"SELECT sum(n)::int FROM 's3://{BUCKET}/a/000.parquet'"), 499_500)
with step("csv"):
    s4.execute(f"COPY (FROM range(1000) t(n)) TO 's3://{BUCKET}/c/000.csv'")
    equal(one(f"SELECT sum(n)::int FROM 's3://{BUCKET}/c/000.csv'"), 499_500)
with step("parts"):
    s4.execute("SET s3_uploader_max_filesize='50GB'")
    s4.execute(f"COPY (SELECT n, hash(n) AS noise FROM range(8_000_000) t(n)) TO 's3://{BUCKET}/a/001.parquet' (COMPRESSION uncompressed)")
with step("range"):
    equal(one(f"SELECT noise = hash(n) FROM 's3://{BUCKET}/a/001.parquet' WHERE n = 7_999_999"), True)
with step("list"):
    equal(s4.sql(f"SELECT file FROM glob('s3://{BUCKET}/a/*.parquet')").fetchall(), [(f"s3://{BUCKET}/a/{n}.parquet",) for n in ("000", "001")])
with step("partitions"):
    s4.execute(
        f"COPY (SELECT n, n % 10 AS g FROM range(1000) t(n)) TO 's3://{BUCKET}/p'"
        " (FORMAT parquet, PARTITION_BY g, FILENAME_PATTERN '{uuid}', OVERWRITE_OR_IGNORE)"
    )
    equal(one(f"SELECT count(*) FROM read_parquet('s3://{BUCKET}/p/*/*.parquet', hive_partitioning=true) WHERE g = 7"), 100)
with step("again"):
    s4.execute(f"COPY (FROM range(1000) t(n)) TO 's3://{BUCKET}/a/000.parquet'")
with refused("overwrite", TAKEN):
    s4.execute(f"COPY (FROM range(2000) t(n)) TO 's3://{BUCKET}/a/000.parquet'")
with refused("wrong_secret", FORBIDDEN):
    client(WRONG).sql(f"FROM 's3://{BUCKET}/a/000.parquet'").fetchall()
with step("delete"):
    s4.execute(f"COPY (SELECT n, n % 5 AS g FROM range(1000) t(n)) TO 's3://{BUCKET}/p' (FORMAT parquet, PARTITION_BY g, OVERWRITE)")
    equal(one(f"SELECT count(*) FROM glob('s3://{BUCKET}/p/*/*.parquet')"), 5)
lacks("copy")
