"""Example function in Python: answers who the gateway says is calling.

Must never put a secret in the answer or the log: only the first 16 digits of its digest.
"""

import hashlib
import json

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.environment import get_environment
from wit_world.imports.types import Fields, OutgoingBody, OutgoingResponse, ResponseOutparam


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request, response_out):
        path = request.path_with_query() or ""
        method = type(request.method()).__name__.removeprefix("Method_").upper()
        headers = request.headers()
        # Not os.environ: that is the environment of the build, part of the snapshot every call starts from.
        env = dict(get_environment())
        print(f"hello-py: {method} {path}", flush=True)
        answer = {
            "method": method,
            "path": path,
            "principal": first(headers, "x-cofferdam-principal"),
            "tenant": first(headers, "x-cofferdam-tenant"),
            "request_id": first(headers, "x-cofferdam-request-id"),
            "greeting": env.get("GREETING"),
            "secret_sha256": fingerprint(env.get("API_SECRET")),
        }
        reply(response_out, json.dumps(answer).encode() + b"\n")


def first(headers, name):
    values = headers.get(name)
    return values[0].decode("utf-8", "replace") if values else None


def fingerprint(secret):
    return None if secret is None else hashlib.sha256(secret.encode()).hexdigest()[:16]


def reply(response_out, text):
    response = OutgoingResponse(Fields.from_list([("content-type", b"application/json")]))
    body = response.body()
    ResponseOutparam.set(response_out, Ok(response))
    with body.write() as stream:
        for start in range(0, len(text), 4096):
            stream.blocking_write_and_flush(text[start : start + 4096])
    OutgoingBody.finish(body, None)
