"""The mount of s4 against those of SeaweedFS and rclone: one large file in and out, and many small ones.

A close in a mount of s4 waits until the key is published on its node. The other two mounts may upload a file after its close."""

import socket
import subprocess
import time

SECONDS_TO_START = 30


def run(peers):
    bench = peers.bench
    small = bench.full(500, 50)
    bench.sh(f"mkdir small && cd small && for i in $(seq {small}); do head -c 12000 /dev/urandom > $i; done")
    bench.sh(f"head -c {bench.full(1 << 30, 1 << 24)} /dev/urandom > large")
    bench.mount()
    bench.sh("mkdir -p mnt/files")
    places = {"s4": "mnt/files", "plain ext4": "plain"}
    bench.sh("mkdir plain")
    with Seaweed(peers) as seaweed:
        places.update(seaweed.places)
        size = "1 GiB" if not bench.quick else "16 MiB"
        work = {
            f"mount: cp of {size} in": "cp large {}/large_RUN",
            f"mount: cp of {size} out": "cp {}/large_RUN out; rm out {}/large_RUN",
            f"mount: cp -r of {small} small files in": "cp -r small {}/small_RUN",
            f"mount: cat of {small} small files": "cat {}/small_RUN/* > /dev/null; rm -r {}/small_RUN",
        }
        writes, reads = list(work.items())[::2], list(work.items())[1::2]
        for (written, write), (read, get) in zip(writes, reads):
            pairs(peers, places, (written, write), (read, get))


def pairs(peers, places, write, read):
    """Measures a write and the read of the same files. Both are rows."""
    times = {(job, name): [] for job, _ in (write, read) for name in places}
    for number in range(peers.runs + 1):
        peers.bench.made += 1
        for name, place in places.items():
            for job, script in (write, read):
                peers.bench.settle()
                began = time.perf_counter()
                peers.bench.sh(script.replace("{}", place).replace("RUN", str(peers.bench.made)))
                if number > 0:
                    times[job, name].append(time.perf_counter() - began)
    for job, _ in (write, read):
        peers.add(job, {name: times[job, name] for name in places})


class Seaweed:
    """A SeaweedFS of this machine with its own mount, and rclone's mount of its S3. `places` is empty where they are missing."""

    def __init__(self, peers):
        self.peers, self.bench = peers, peers.bench
        self.places = {}
        self.processes = []

    def __enter__(self):
        if self.peers.version("SeaweedFS", "weed version"):
            self.serve()
            self.attach("SeaweedFS, weed mount", "weed-mount", f"weed mount -filer=127.0.0.1:{self.filer} -dir=weed-mount")
            if self.peers.version("rclone", "rclone version"):
                remote = f":s3,provider=SeaweedFS,endpoint='http://127.0.0.1:{self.s3}',access_key_id=a,secret_access_key=b:"
                self.bench.sh(f'rclone mkdir "{remote}files"')
                self.attach(
                    "SeaweedFS, rclone mount", "rclone-mount", f'rclone mount --vfs-cache-mode writes "{remote}files" rclone-mount'
                )
        return self

    def serve(self):
        # A port and the same plus 10,000, for each service.
        master, volume, self.filer, self.s3 = (free_port() for _ in range(4))
        self.bench.sh("mkdir weed")
        self.start(
            f"weed server -dir=weed -ip=127.0.0.1 -master.port={master} -volume.port={volume} -volume.max=50"
            f" -filer -filer.port={self.filer} -s3 -s3.port={self.s3} -master.telemetry=false -s3.port.iceberg=0 -s3.port.lance=0"
        )
        self.wait(f"curl -sf http://127.0.0.1:{self.filer}/ && curl -s http://127.0.0.1:{self.s3}/ && curl -sf http://127.0.0.1:{volume}/status")

    def attach(self, name, place, command):
        self.bench.sh(f"mkdir {place}")
        self.start(command)
        self.wait(f"mountpoint -q {place} && touch {place}/ready")
        self.places[name] = place

    def start(self, command):
        log = open(self.bench.work / "peers.log", "a")
        self.processes.append(
            subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=self.bench.work, env=self.bench.env, stdout=log, stderr=log)
        )

    def wait(self, condition):
        self.bench.sh(
            f"for i in $(seq {SECONDS_TO_START * 10}); do {{ {condition}; }} >/dev/null 2>&1 && exit; sleep 0.1; done"
            "; tail -3 peers.log >&2; exit 1"
        )

    def __exit__(self, *_):
        for place in self.places.values():
            subprocess.run(["umount", "-l", self.bench.work / place], check=False)
        for process in reversed(self.processes):
            process.terminate()
            process.wait()


def free_port():
    """A port that is free together with the port 10,000 above it, where SeaweedFS has its RPC."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as low:
            port = low.getsockname()[1]
            try:
                with socket.create_server(("127.0.0.1", port + 10_000)):
                    return port
            except (OSError, OverflowError):
                continue
