"""Signs a request as AWS's own tools in Python do, and prints what to send.

    sign.py ID SECRET fields  METHOD URL BODY [NAME:VALUE ...]   the fields, a line each
    sign.py ID SECRET presign METHOD URL SECONDS                 the URL
    sign.py ID SECRET send    METHOD URL BODY CA                 sends it, and prints status and body

REGION and SERVICE in the environment say for where and what.
"""

import os
import sys

from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.httpsession import URLLib3Session


def main(key, secret, what, method, url, *rest):
    credentials = Credentials(key, secret)
    scope = os.environ.get("SERVICE", "execute-api"), os.environ.get("REGION", "us-east-1")
    if what == "presign":
        request = AWSRequest(method=method, url=url)
        SigV4QueryAuth(credentials, *scope, expires=int(rest[0])).add_auth(request)
        print(request.url)
        return
    body, *fields = rest
    if what == "send":
        ca, fields = fields[0], []
    request = AWSRequest(method=method, url=url, data=body.encode())
    for field in fields:
        name, _, value = field.partition(":")
        request.headers[name] = value
    SigV4Auth(credentials, *scope).add_auth(request)
    if what == "send":
        answer = URLLib3Session(verify=ca).send(request.prepare())
        print(answer.status_code)
        print(answer.text, end="")
        return
    for name, value in request.headers.items():
        print(f"{name}:{value}")


main(*sys.argv[1:])
