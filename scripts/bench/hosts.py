"""Hosts for GNU parallel: one sshd of this machine, on as many addresses of the loopback interface as the cluster has nodes."""

import shutil
import socket
import subprocess
from pathlib import Path

SECONDS_TO_START = 5


class Hosts:
    """`addresses` is empty where parallel or sshd is missing."""

    def __init__(self, bench, peers):
        self.bench, self.peers = bench, peers
        self.addresses = []
        self.ssh = ""
        self.process = None

    def __enter__(self):
        sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        if sshd and shutil.which("parallel"):
            self.peers.version("GNU parallel", "parallel --version")
            self.peers.version("OpenSSH", "ssh -V")
            self.start(sshd)
        return self

    def start(self, sshd):
        work = self.bench.work / "ssh"
        work.mkdir()
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", work / name], check=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        addresses = [f"127.0.0.{host + 1}" for host in range(self.bench.nodes)]
        options = [f"HostKey={work}/host", f"AuthorizedKeysFile={work}/user.pub", "PidFile=none", "StrictModes=no", "UsePAM=no"]
        options += [f"ListenAddress={address}:{port}" for address in addresses]
        words = [word for option in options for word in ("-o", option)]
        Path("/run/sshd").mkdir(exist_ok=True)
        self.process = subprocess.Popen([sshd, "-D", "-f", "/dev/null", *words], stderr=subprocess.DEVNULL)
        self.ssh = (
            f"ssh -p {port} -i {work}/user -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
            f" -o ControlMaster=auto -o ControlPath={work}/%h -o ControlPersist=60"
        )
        tries = SECONDS_TO_START * 10
        self.bench.sh(f"for i in $(seq {tries}); do {self.ssh} {addresses[0]} true && exit; sleep 0.1; done; exit 1")
        self.addresses = addresses

    def means(self):
        """A script: each file is summed on a host, and the sums come back. All hosts have the files already."""
        logins = ",".join(f"2/{address}" for address in self.addresses)
        return (
            f"ls $PWD/flights/*.csv | parallel --ssh '{self.ssh}' -S {logins} 'bash {self.bench.work}/sums < {{}}' > sums_RUN"
            "; bash means < sums_RUN > means_RUN"
        )

    def __exit__(self, *_):
        if self.process:
            self.process.terminate()
            self.process.wait()
