"""boto3, AWS's library for Python. Path style is what it takes by itself where the endpoint is an address; a host name needs
Config(s3={"addressing_style": "path"})."""
# needs: pip boto3
import boto3
from boto3.s3.transfer import TransferConfig

from steps import *


def client(secret):
    return boto3.client(
        "s3", endpoint_url=ENDPOINT, aws_access_key_id=KEY, aws_secret_access_key=secret, region_name=REGION
    )


s3 = client(SECRET)
got = WORK / "got"
in_parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)

with step("put"):
    s3.put_object(Bucket=BUCKET, Key="a/small", Body=SMALL.read_bytes(), ContentType="text/csv", Metadata={"origin": "here"})
    stored("a/small", SMALL)
with step("get"):
    answer = s3.get_object(Bucket=BUCKET, Key="a/small")
    same(answer["Body"].read(), SMALL)
    equal((answer["ContentType"], answer["Metadata"]), ("text/csv", {"origin": "here"}))
with step("list"):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="a/")
    equal([(entry["Key"], entry["Size"]) for page in pages for entry in page["Contents"]], [("a/small", SMALL.stat().st_size)])
    prefixes = s3.list_objects_v2(Bucket=BUCKET, Delimiter="/")["CommonPrefixes"]
    equal(prefixes, [{"Prefix": "a/"}])
with step("range"):
    part = s3.get_object(Bucket=BUCKET, Key="a/small", Range="bytes=5-14")["Body"].read()
    equal(part, SMALL.read_bytes()[5:15])
with step("parts"):
    s3.upload_file(LARGE, BUCKET, "a/large", Config=in_parts)
    stored("a/large", LARGE)
with step("parts_down"):
    s3.download_file(BUCKET, "a/large", got, Config=in_parts)
    same(got, LARGE)
with step("copy"):
    s3.copy({"Bucket": BUCKET, "Key": "a/small"}, BUCKET, "b/small")
    stored("b/small", SMALL)
with step("copy_in_parts"):
    s3.copy({"Bucket": BUCKET, "Key": "a/large"}, BUCKET, "b/large", Config=in_parts)
    stored("b/large", LARGE)
with step("again"):
    s3.upload_file(SMALL, BUCKET, "a/small")
with refused("overwrite", TAKEN):
    s3.upload_file(OTHER, BUCKET, "a/small")
with refused("wrong_secret", FORBIDDEN):
    client(WRONG).get_object(Bucket=BUCKET, Key="a/small")
with step("delete"):
    s3.delete_object(Bucket=BUCKET, Key="a/small")
    equal([entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET, Prefix="a/")["Contents"]], ["a/large"])
with step("delete_all"):
    boto3.resource("s3", endpoint_url=ENDPOINT, region_name=REGION).Bucket(BUCKET).objects.all().delete()
    equal(s3.list_objects_v2(Bucket=BUCKET)["KeyCount"], 0)
