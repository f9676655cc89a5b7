"""What the Python scripts of this directory share: the server's address, two files, and one line of output for each operation."""

import filecmp
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

ENDPOINT = os.environ["S3_ENDPOINT"]
HOST = ENDPOINT.removeprefix("http://")
KEY, SECRET = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
WRONG = "not the secret"
REGION = "us-east-1"
BUCKET = os.environ["BUCKET"]
WORK = Path(os.environ["WORK"])
# 1,000 lines; another file of the same name but not of its size; 20 MiB, which every client sends in parts.
SMALL, OTHER, LARGE = WORK / "small", WORK / "other", WORK / "large"

# What clients make of the answers 412 and 403. Some show the code, some the message, some only the status.
TAKEN = ("PreconditionFailed", "Precondition Failed", "precondition", "412", "AlreadyExists")
FORBIDDEN = ("SignatureDoesNotMatch", "Forbidden", "AccessDenied", "403", "ACCESS_DENIED", "PermissionDenied", "permission")


def line(operation, result, detail=""):
    print(operation, result, " ".join(str(detail).split())[:300], sep="\t", flush=True)


@contextmanager
def step(operation):
    """The operation must succeed."""
    try:
        yield
    except Exception as error:
        line(operation, "FAIL", f"{type(error).__name__}: {error}")
    else:
        line(operation, "ok")


@contextmanager
def refused(operation, words):
    """The operation must fail with an error that has one of `words` in it. The error is shown."""
    try:
        yield
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        line(operation, "ok" if any(word in said for word in words) else "FAIL", said)
    else:
        line(operation, "FAIL", "it was not refused")


def lacks(*operations):
    """The client has no such operations."""
    for operation in operations:
        line(operation, "none", "the client has no such operation")


def stored(key, file):
    """The cluster itself has the bytes of `file` under the key."""
    if "S4_CONF_PATH" in os.environ:
        copy = WORK / "stored"
        copy.unlink(missing_ok=True)
        subprocess.run(["s4", "cp", f"s4://{BUCKET}/{key}", copy], check=True, stdout=sys.stderr)
        same(copy, file)


def same(copy, file):
    """Two files, or bytes and a file, are equal."""
    equal = copy == Path(file).read_bytes() if isinstance(copy, bytes) else filecmp.cmp(copy, file, shallow=False)
    assert equal, f"the bytes are not those of {file}"


def equal(got, wanted):
    assert got == wanted, f"{got!r} in place of {wanted!r}"
