"""HTTP/2 by the frame, for what no library would send."""

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
SECONDS_MAX = 20


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers(fields):
    """HPACK, all literal, nothing indexed."""
    def text(raw):
        raw = raw if isinstance(raw, bytes) else raw.encode()
        if len(raw) < 127:
            return bytes([len(raw)]) + raw
        rest, out = len(raw) - 127, [127]
        while rest >= 128:
            out.append(rest % 128 + 128)
            rest //= 128
        return bytes([*out, rest]) + raw
    return b"".join(b"\0" + text(name) + text(value) for name, value in fields)


def grpc_headers(path, *more):
    return headers([(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"),
                    ("content-type", "application/grpc"), ("te", "trailers"), *more])


def message(body):
    return b"\0" + struct.pack(">I", len(body)) + body


class Connection:
    def __init__(self, address):
        self.socket = socket.create_connection(address.split(":"), timeout=SECONDS_MAX)
        self.incoming = self.socket.makefile("rb")
        self.send(PREFACE + frame(SETTINGS))

    def send(self, data):
        self.socket.sendall(data)

    def next_frame(self):
        """Kind, flags, stream and payload; None when the server has closed."""
        try:
            head = self.incoming.read(9)
            if len(head) < 9:
                return None
            length = int.from_bytes(head[:3], "big")
            return head[3], head[4], int.from_bytes(head[5:9], "big"), self.incoming.read(length)
        except ConnectionError:
            return None

    def until_closed(self):
        """The kinds of all frames that come before the server closes."""
        kinds = []
        while (got := self.next_frame()) is not None:
            kinds.append(got[0])
        return kinds

    def frames(self, stream):
        """Kind and payload of what a stream brings, until it ends or the connection does."""
        while (got := self.next_frame()) is not None:
            kind, flags, of, payload = got
            if of == stream:
                yield kind, payload
                if kind == RESET or (kind in (HEADERS, DATA) and flags & END_STREAM):
                    return

    def answer(self, stream):
        """The raw header blocks and data of a stream, until it ends or the connection does."""
        return b"".join(payload for _, payload in self.frames(stream))

    def close(self):
        self.incoming.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
