"""The JSON gateway of a server, as a program without any library of ours uses it."""

import base64
import http.client
import json

SECONDS_MAX = 20


def b64(text):
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def unb64(text):
    return base64.b64decode(text)


def prefix(text):
    """The fields of a request for all keys that begin with `text`."""
    raw = text.encode()
    return {"key": b64(raw), "range_end": b64(raw[:-1] + bytes([raw[-1] + 1]))}


def connect(address, seconds, context):
    if context is None:
        return http.client.HTTPConnection(address, timeout=seconds)
    return http.client.HTTPSConnection(address, timeout=seconds, context=context)


def request(address, method, path, body=None, headers=None, seconds=SECONDS_MAX, context=None):
    """Status, headers (lower case) and body of one request on a connection of its own; over TLS with a `context`."""
    connection = connect(address, seconds, context)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


def post(address, path, fields, headers=None, seconds=SECONDS_MAX, context=None):
    """Status and JSON of one call."""
    status, _, body = request(address, "POST", path, json.dumps(fields), headers, seconds, context)
    return status, json.loads(body)


class Stream:
    """An answer of many lines; close() lets it go."""

    def __init__(self, address, path, *fields, seconds=SECONDS_MAX, context=None, headers=None):
        self.connection = connect(address, seconds, context)
        self.connection.request("POST", path, body="".join(json.dumps(f) for f in fields), headers=headers or {})
        self.response = None

    def next(self):
        """The next line's JSON, or None at the end."""
        if self.response is None:
            self.response = self.connection.getresponse()
        line = self.response.readline()
        return json.loads(line) if line.strip() else None

    @property
    def status(self):
        if self.response is None:
            self.response = self.connection.getresponse()
        return self.response.status

    def close(self):
        if self.response is not None:
            self.response.close()
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
