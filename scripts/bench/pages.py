"""Lists a bucket of S3 page by page, and prints how many keys it has. It looks for the names and the next token only, so that its own time
does not count: clients that build objects of XML take longer for that than the server for the pages."""

import datetime
import hashlib
import hmac
import http.client
import re
import sys
from urllib.parse import quote


def signature(secret, request, now):
    """Of version 4: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html"""
    scope = f"{now[:8]}/us-east-1/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in (now[:8], "us-east-1", "s3", "aws4_request", text):
        key = hmac.new(key, part.encode(), "sha256").digest()
    return f"AWS4-HMAC-SHA256 Credential=s4/{scope}, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={key.hex()}"


def pages(host, bucket, secret):
    connection, token = http.client.HTTPConnection(host), ""
    while token is not None:
        query = f"continuation-token={quote(token, safe='')}&list-type=2" if token else "list-type=2"
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": host, "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "x-amz-date": now}
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        request = f"GET\n/{bucket}\n{query}\n{lines}\n{';'.join(headers)}\nUNSIGNED-PAYLOAD"
        connection.request("GET", f"/{bucket}?{query}", headers={**headers, "authorization": signature(secret, request, now)})
        answer = connection.getresponse()
        page = answer.read()
        if answer.status != 200:
            sys.exit(f"pages: {answer.status}: {page.decode()}")
        yield page
        found = re.search(rb"<NextContinuationToken>([^<]*)<", page)
        token = found and found[1].decode()


print(sum(page.count(b"<Key>") for page in pages(*sys.argv[1:])))
