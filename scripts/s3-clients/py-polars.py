"""polars. The options are the same for reading and writing. It reads the parts of a Parquet file that a query needs, in ranges."""
# needs: pip polars
import polars as pl

from steps import *


def options(secret):
    return {
        "aws_endpoint_url": ENDPOINT,
        "aws_access_key_id": KEY,
        "aws_secret_access_key": secret,
        "aws_region": REGION,
        "aws_allow_http": "true",
        "aws_virtual_hosted_style_request": "false",
        "max_retries": 1,
    }


s4 = options(SECRET)
small = pl.DataFrame({"n": range(1000)}).with_columns(square=pl.col("n") ** 2)
# About 30 MB as Parquet, in several row groups.
large = pl.select(n=pl.int_range(4_000_000)).with_columns(noise=pl.col("n").hash(1))

with step("put"):
    small.write_parquet(f"s3://{BUCKET}/a/000.parquet", storage_options=s4)
with step("get"):
    assert pl.read_parquet(f"s3://{BUCKET}/a/000.parquet", storage_options=s4).equals(small)
with step("csv"):
    small.write_csv(f"s3://{BUCKET}/c/000.csv", storage_options=s4)
    equal(pl.scan_csv(f"s3://{BUCKET}/c/*.csv", storage_options=s4).select(pl.len()).collect().item(), 1000)
with step("parts"):
    large.lazy().sink_parquet(f"s3://{BUCKET}/a/001.parquet", storage_options=s4, compression="uncompressed")
with step("list"):
    equal(pl.scan_parquet(f"s3://{BUCKET}/a/000*.parquet", storage_options=s4).select(pl.len()).collect().item(), 1000)
with step("range"):
    read = pl.scan_parquet(f"s3://{BUCKET}/a/001.parquet", storage_options=s4)
    equal(read.filter(pl.col("n") == 3_999_999).select("noise").collect().item(), large["noise"][-1])
with step("partitions"):
    by_last_digit = pl.PartitionBy(f"s3://{BUCKET}/p/", key={"g": pl.col("n") % 10}, include_key=False)
    small.lazy().sink_parquet(by_last_digit, storage_options=s4, mkdir=True)
    read = pl.scan_parquet(f"s3://{BUCKET}/p/**/*.parquet", storage_options=s4, hive_partitioning=True)
    equal(read.filter(pl.col("g") == 7).select(pl.len()).collect().item(), 100)
with step("again"):
    small.write_parquet(f"s3://{BUCKET}/a/000.parquet", storage_options=s4)
with refused("overwrite", TAKEN):
    small.reverse().write_parquet(f"s3://{BUCKET}/a/000.parquet", storage_options=s4)
with refused("wrong_secret", FORBIDDEN):
    pl.read_parquet(f"s3://{BUCKET}/a/000.parquet", storage_options=options(WRONG))
lacks("copy", "delete")
