"""Spark by s3a. The jars of s3a are not in pyspark; with network, `spark.jars.packages` fetches them. The committer renames, which s3a does by
copies. `mode("overwrite")` deletes first, and so works."""
# needs: pip pyspark==3.5.*
# needs: apt java default-jre-headless
# needs: s3a jars
import os

from pyspark.sql import SparkSession

from steps import *


def session(secret):
    settings = {
        "spark.jars": ",".join(str(jar) for jar in (Path(os.environ["TOOLS"]) / "jars").glob("*.jar")),
        "spark.hadoop.fs.s3a.endpoint": ENDPOINT,
        "spark.hadoop.fs.s3a.endpoint.region": REGION,
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.connection.ssl.enabled": "false",
        "spark.hadoop.fs.s3a.access.key": KEY,
        "spark.hadoop.fs.s3a.secret.key": secret,
        "spark.hadoop.fs.s3a.multipart.size": "5M",
        "spark.hadoop.fs.s3a.attempts.maximum": "1",
        "spark.hadoop.fs.s3a.retry.limit": "1",
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
    }
    builder = SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    made = builder.getOrCreate()
    made.sparkContext.setLogLevel("OFF")
    return made


spark = session(SECRET)
TABLE = f"s3a://{BUCKET}/table"


def hadoop(path):
    """Hadoop's file system, and the path in it."""
    path = spark._jvm.org.apache.hadoop.fs.Path(path)
    return path.getFileSystem(spark._jsc.hadoopConfiguration()), path


def upload(file, path):
    fs, path = hadoop(path)
    fs.copyFromLocalFile(False, True, spark._jvm.org.apache.hadoop.fs.Path(str(file)), path)


with step("put"):
    spark.range(1000).repartition(4).write.parquet(TABLE)
with step("get"):
    equal(spark.read.parquet(TABLE).selectExpr("sum(id)").first()[0], 499_500)
with step("list"):
    fs, path = hadoop(TABLE)
    names = sorted(status.getPath().getName() for status in fs.listStatus(path))
    equal(len([name for name in names if name.endswith(".parquet")]), 4)
    assert "_SUCCESS" in names and "_temporary" not in names, names
with step("append"):
    spark.range(1000, 2000).write.mode("append").parquet(TABLE)
    equal(spark.read.parquet(TABLE).count(), 2000)
with step("replace"):
    spark.range(10).write.mode("overwrite").parquet(TABLE)
    equal(spark.read.parquet(TABLE).count(), 10)
with step("partitions"):
    spark.range(1000).selectExpr("id", "id % 10 as g").write.partitionBy("g").parquet(f"s3a://{BUCKET}/parts")
    equal(spark.read.parquet(f"s3a://{BUCKET}/parts").where("g = 7").count(), 100)
    fs, path = hadoop(f"s3a://{BUCKET}/parts")
    assert "_temporary" not in [status.getPath().getName() for status in fs.listStatus(path)]
with step("parts"):
    upload(LARGE, f"s3a://{BUCKET}/a/large")
    stored("a/large", LARGE)
with step("range"):
    upload(SMALL, f"s3a://{BUCKET}/a/small")
    fs, path = hadoop(f"s3a://{BUCKET}/a/small")
    with_offset = fs.open(path)
    with_offset.seek(5)
    equal(bytes(with_offset.read() for _ in range(10)), SMALL.read_bytes()[5:15])
    with_offset.close()
with step("copy"):
    fs, path = hadoop(f"s3a://{BUCKET}/a/small")
    assert fs.rename(path, hadoop(f"s3a://{BUCKET}/a/moved")[1])
    stored("a/moved", SMALL)
with refused("overwrite", TAKEN):
    upload(OTHER, f"s3a://{BUCKET}/a/moved")
with step("delete"):
    fs, path = hadoop(f"s3a://{BUCKET}/a/moved")
    assert fs.delete(path, False) and not fs.exists(path)
with step("delete_all"):
    fs, path = hadoop(TABLE)
    assert fs.delete(path, True) and not fs.exists(path)
with refused("wrong_secret", FORBIDDEN):
    conf = spark._jsc.hadoopConfiguration()
    conf.set("fs.s3a.secret.key", WRONG)
    conf.set("fs.s3a.impl.disable.cache", "true")
    hadoop(TABLE)[0].listStatus(hadoop(f"s3a://{BUCKET}/a")[1])
