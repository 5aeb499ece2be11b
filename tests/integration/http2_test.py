"""Pages and gateway for clients that speak HTTP/2: curl by prior knowledge and over TLS, and by the frame what no library
would send. What HTTP/1.1 answers, HTTP/2 answers as well, and gRPC goes on beside it.

usage: http2_test.py --conclave PATH
"""

import argparse
import concurrent.futures
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
sys.path.insert(0, str(pathlib.Path(__file__).parent))
import raw_http2 as h2  # noqa: E402
from gateway import b64, prefix, request, unb64  # noqa: E402
from pki import Authority  # noqa: E402
from servers import Cluster, Tls, free_ports, memory_folder, wait_for  # noqa: E402

ARGS = None
SECONDS_MAX = 20
RANGE_A = h2.message(b"\x0a\x01a")  # etcdserverpb.RangeRequest of the key "a"
PRIOR = "--http2-prior-knowledge"


def curl(url, *arguments, body=None):
    """The version of HTTP, status, headers (lower case) and body of one request."""
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", str(SECONDS_MAX), "--dump-header", "/dev/stderr",
         "--write-out", "\n%{http_version} %{http_code}", *(["--data-binary", "@-"] if body is not None else []),
         *arguments, url],
        input=body.encode() if isinstance(body, str) else body, capture_output=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"curl {url}: {done.returncode} {done.stderr.decode()}")
    said, _, last = done.stdout.rpartition(b"\n")
    version, status = last.decode().split()
    headers = dict(line.lower().split(": ", 1) for line in done.stderr.decode().splitlines() if ": " in line)
    return version, int(status), headers, said


class Streaming:
    """A curl whose answer comes line by line."""

    def __init__(self, url, *arguments, body):
        self.process = subprocess.Popen(["curl", "-sN", PRIOR, "--data-binary", "@-", *arguments, url],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.process.stdin.write(body.encode())
        self.process.stdin.close()

    def next(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Plain(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.metrics_port, = free_ports(1)
        cls.cluster = Cluster("conclave", ARGS.conclave, folder=memory_folder(), flags=[
            "--listen-metrics-urls", f"http://127.0.0.1:{cls.metrics_port}"])
        cls.addClassCleanup(cls.cluster.stop)
        cls.address = cls.cluster.clients[0]
        cls.url = f"http://{cls.address}"

    def tearDown(self):
        self.assertIsNone(self.cluster.dead())

    def post(self, path, fields, *arguments):
        version, status, headers, body = curl(self.url + path, PRIOR, *arguments, body=json.dumps(fields))
        self.assertEqual(version, "2")
        return status, headers, json.loads(body)

    def test_pages_are_those_of_http_1(self):
        for path in ("/health", "/health?serializable=true", "/version", "/livez", "/readyz?verbose", "/livez/other",
                     "/readyz/non_learner", "/nothing", "/"):
            status, headers, body = request(self.address, "GET", path)
            version, status2, headers2, body2 = curl(self.url + path, PRIOR)
            self.assertEqual(version, "2", path)
            self.assertEqual((status, headers["content-type"], body), (status2, headers2["content-type"], body2), path)
            self.assertEqual(headers2["access-control-allow-origin"], "*")
        _, status, headers, body = curl(self.url + "/metrics", PRIOR)
        self.assertEqual((status, headers["content-type"]), (200, "text/plain; version=0.0.4; charset=utf-8"))
        self.assertIn(b"etcd_server_has_leader 1", body)
        self.assertEqual(int(headers["content-length"]), len(body))

    def test_other_methods(self):
        _, status, headers, _ = curl(self.url + "/health", PRIOR, body="x")
        self.assertEqual((status, headers["allow"]), (405, "get"))
        _, status, headers, body = curl(self.url + "/health", PRIOR, "--head", "--output", "/dev/null")
        self.assertEqual((status, body), (405, b""))
        _, status, headers, _ = curl(self.url + "/v3/kv/put", PRIOR, "-X", "OPTIONS")
        self.assertEqual(status, 200)
        self.assertIn("post", headers["access-control-allow-methods"])
        self.assertEqual(curl(self.url + "/v3/kv/range", PRIOR)[1], 405)
        # A method of gRPC is none for others.
        self.assertEqual(curl(self.url + "/etcdserverpb.KV/Range", PRIOR, body="{}")[1], 415)
        self.assertEqual(curl(self.url + "/etcdserverpb.KV/Range", PRIOR)[1], 405)

    def test_the_gateway(self):
        status, headers, body = self.post("/v3/kv/put", {"key": b64("gateway/a"), "value": b64("v")})
        self.assertEqual((status, headers["grpc-metadata-content-type"]), (200, "application/grpc"))
        self.assertIn("revision", body["header"])
        status, _, body = self.post("/v3/kv/range", prefix("gateway/"))
        self.assertEqual([unb64(kv["value"]) for kv in body["kvs"]], [b"v"])
        status, _, body = self.post("/v3/kv/put", {"value": b64("v")})
        self.assertEqual((status, body["message"]), (400, "etcdserver: key is not provided"))
        self.assertEqual(self.post("/v3/nothing", {})[0], 404)
        _, status, _, body = curl(self.url + "/v3/kv/range", PRIOR, body='{"key": ')
        self.assertEqual(status, 400, body)
        status, _, body = self.post("/v3/kv/range", {"key": b64("k")}, "-H", "Grpc-Timeout: never")
        self.assertEqual((status, body["message"]), (400, "invalid grpc-timeout"))

    def test_large_bodies(self):
        value = b64(bytes(1_000_000))
        self.assertEqual(self.post("/v3/kv/put", {"key": b64("h2/large"), "value": value})[0], 200)
        _, _, body = self.post("/v3/kv/range", {"key": b64("h2/large")})
        self.assertEqual(body["kvs"][0]["value"], value)
        status, _, body = self.post("/v3/kv/put", {"key": b64("k"), "value": b64(bytes(1_800_000))})
        self.assertEqual((status, body["message"]), (400, "etcdserver: request is too large"))
        _, status, _, _ = curl(self.url + "/v3/kv/put", PRIOR, body=b'{"key": "' + b"A" * 20_000_000)
        self.assertEqual(status, 429)

    def handled_at_deadlines(self, method):
        _, _, page = request(self.address, "GET", "/metrics")
        found = re.search(rb'grpc_server_handled_total\{[^}]*grpc_code="DeadlineExceeded"[^}]*grpc_method="%s"[^}]*\} (\d+)'
                          % method.encode(), page)
        return int(found[1])

    def test_deadlines_are_kept_for_clients_that_do_not(self):
        """Each call would wait for ever; its client says how long it waits, and then says nothing more."""
        hold = {"name": b64("deadlines")}
        self.assertEqual(self.post("/v3/lock/lock", hold)[0], 200)

        def waiters():
            return int(self.post("/v3/kv/range", {**prefix("deadlines/"), "count_only": True})[2].get("count", 0))
        self.assertEqual(waiters(), 1)
        calls = {
            "Watch": ("/etcdserverpb.Watch/Watch", h2.message(b"\x0a\x03\x0a\x01a"), 0),
            "LeaseKeepAlive": ("/etcdserverpb.Lease/LeaseKeepAlive", b"", 0),
            "Put": ("/etcdserverpb.KV/Put", b"", 0),  # whose message does not come
            "Lock": ("/v3lockpb.Lock/Lock", h2.message(b"\x0a\x09deadlines"), h2.END_STREAM),
        }
        before = {method: self.handled_at_deadlines(method) for method in calls}
        with h2.Connection(self.address) as peer:
            for number, (path, body, flags) in enumerate(calls.values()):
                fields = h2.grpc_headers(path, ("grpc-timeout", "1500m"))
                peer.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 2 * number + 1, fields)
                          + h2.frame(h2.DATA, flags, 2 * number + 1, body))
            wait_for(lambda: waiters() == 2, "the second lock to wait", SECONDS_MAX)
            ended = set()
            while len(ended) < len(calls):
                kind, flags, stream, _ = peer.next_frame()
                if kind == h2.HEADERS and flags & h2.END_STREAM:
                    ended.add(stream)
        wait_for(lambda: waiters() == 1, "the second lock to leave its queue", SECONDS_MAX)
        for method, count in before.items():
            self.assertEqual(self.handled_at_deadlines(method), count + 1, method)
        # One that is far away, or in no time of gRPC's, ends nothing.
        for timeout in ("99999999H", "soon"):
            with h2.Connection(self.address) as peer:
                peer.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1,
                                   h2.grpc_headers("/etcdserverpb.KV/Range", ("grpc-timeout", timeout)))
                          + h2.frame(h2.DATA, h2.END_STREAM, 1, RANGE_A))
                self.assertIn(h2.DATA, [kind for kind, _ in peer.frames(1)], timeout)

    def test_many_at_a_time_on_one_connection(self):
        for i in range(40):
            self.post("/v3/kv/put", {"key": b64(f"many/{i:02}"), "value": b64("x" * 5000)})
        body = json.dumps(prefix("many/")).encode()
        fields = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", "/v3/kv/range")]
        with h2.Connection(self.address) as peer:
            # As much as the server wants to send, at once.
            peer.send(h2.frame(h2.SETTINGS, 0, 0, b"\0\x04\x7f\xff\xff\xff")
                      + h2.frame(h2.WINDOW_UPDATE, 0, 0, b"\x7f\0\0\0"))
            said = {stream: b"" for stream in range(1, 81, 2)}
            for stream in said:
                peer.send(h2.frame(h2.HEADERS, h2.END_HEADERS, stream, h2.headers(fields))
                          + h2.frame(h2.DATA, h2.END_STREAM, stream, body))
            open_streams = set(said)
            while open_streams:
                kind, flags, stream, payload = peer.next_frame()
                if kind == h2.DATA:
                    said[stream] += payload
                if stream in said and flags & h2.END_STREAM:
                    open_streams.discard(stream)
        for answer in said.values():
            self.assertEqual(json.loads(answer)["count"], "40")

    def test_streams(self):
        watch = json.dumps({"create_request": {"key": b64("h2/w")}})
        with Streaming(self.url + "/v3/watch", body=watch + watch) as stream:
            self.assertTrue(stream.next()["result"]["created"])
            self.assertEqual(stream.next()["result"].get("watch_id"), "1")
            self.post("/v3/kv/put", {"key": b64("h2/w"), "value": b64("seen")})
            for _ in range(2):
                self.assertEqual(unb64(stream.next()["result"]["events"][0]["kv"]["value"]), b"seen")
        wait_for(lambda: self.metric("etcd_debugging_mvcc_watch_stream_total") == 0, "the watch's end", SECONDS_MAX)
        _, _, body = self.post("/v3/lease/grant", {"TTL": 60})
        alive = json.dumps({"ID": body["ID"]}) * 3
        _, status, _, said = curl(self.url + "/v3/lease/keepalive", PRIOR, body=alive)
        self.assertEqual(status, 200)
        self.assertEqual([json.loads(line)["result"]["TTL"] for line in said.splitlines() if line], ["60"] * 3)
        status, _, body = self.post("/v3/election/proclaim", {"value": "eA=="})
        self.assertEqual((status, body["message"]), (500, '"leader" field must be provided'))

    def metric(self, name):
        text = request(self.address, "GET", "/metrics")[2].decode()
        return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    def test_grpc_and_pages_on_one_connection(self):
        with h2.Connection(self.address) as peer:
            def page(stream, *more):
                fields = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/version"), *more]
                return h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, h2.headers(fields))
            call = h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.grpc_headers("/etcdserverpb.KV/Range"))
            peer.send(call + page(3) + h2.frame(h2.DATA, h2.END_STREAM, 1, RANGE_A) + page(5))
            said = {stream: b"" for stream in (1, 3, 5)}
            open_streams = set(said)
            while open_streams:
                kind, flags, stream, payload = peer.next_frame()
                if stream in said and kind == h2.DATA:
                    said[stream] += payload
                if stream in said and kind in (h2.HEADERS, h2.DATA) and flags & h2.END_STREAM:
                    open_streams.discard(stream)
        self.assertTrue(said[1].startswith(b"\0\0\0\0"))
        for stream in (3, 5):
            self.assertEqual(json.loads(said[stream])["etcdserver"], "3.6.0")

    def test_requests_that_are_broken_off(self):
        put = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", "/v3/kv/put")]
        with h2.Connection(self.address) as peer:
            for stream in range(1, 400, 2):
                peer.send(h2.frame(h2.HEADERS, h2.END_HEADERS, stream, h2.headers(put))
                          + h2.frame(h2.DATA, 0, stream, b'{"key":"aDI="')
                          + h2.frame(h2.RESET, 0, stream, b"\0\0\0\x08"))
            peer.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 401, h2.headers(put))
                      + h2.frame(h2.DATA, h2.END_STREAM, 401, b'{"key":"aDI=","value":"d2hvbGU="}'))
            self.assertIn(b'"revision"', peer.answer(401))
        # The connection goes in the middle of bodies and of answers.
        for _ in range(20):
            with h2.Connection(self.address) as peer:
                get = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/metrics")]
                peer.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.headers(put)) + b"".join(
                    h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, s, h2.headers(get)) for s in range(3, 40, 2)))
        _, status, _, _ = curl(self.url + "/health", PRIOR)
        self.assertEqual(status, 200)

    def test_headers_that_are_too_many_or_not_there(self):
        with h2.Connection(self.address) as peer:
            big = [(":method", "GET"), (":scheme", "http"), (":path", "/health")] + [("x", "y" * 4000)] * 3
            block = h2.headers(big)
            peer.send(h2.frame(h2.HEADERS, h2.END_STREAM, 1, block))
            for _ in range(4):
                peer.send(h2.frame(h2.CONTINUATION, 0, 1, h2.headers([("x", "y" * 4000)] * 3)))
            peer.send(h2.frame(h2.CONTINUATION, h2.END_HEADERS, 1, b""))
            kind = None
            while kind not in (h2.RESET, h2.GOAWAY, h2.HEADERS):
                kind = peer.next_frame()[0]
            self.assertNotEqual(kind, h2.HEADERS)
        with h2.Connection(self.address) as peer:
            peer.send(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, h2.headers([("x", "y")])))
            self.assertIn(b"404", peer.answer(1))

    def test_the_port_of_metrics(self):
        url = f"http://127.0.0.1:{self.metrics_port}"
        self.assertEqual(curl(url + "/health", PRIOR)[:2], ("2", 200))
        self.assertEqual(curl(url + "/health")[:2], ("1.1", 200))
        self.assertEqual(curl(url + "/version", PRIOR)[:2], ("2", 404))
        self.assertEqual(curl(url + "/v3/kv/put", PRIOR, body="{}")[:2], ("2", 404))
        with h2.Connection(f"127.0.0.1:{self.metrics_port}") as peer:
            peer.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.grpc_headers("/etcdserverpb.KV/Range"))
                      + h2.frame(h2.DATA, h2.END_STREAM, 1, RANGE_A))
            self.assertEqual(peer.answer(1), b"\x8d")  # HPACK's ":status: 404"


class Ports(unittest.TestCase):
    def start(self, **options):
        cluster = Cluster("conclave", ARGS.conclave, folder=memory_folder(), **options)
        self.addCleanup(cluster.stop)
        return cluster

    def test_a_port_of_its_own_for_http(self):
        port, = free_ports(1)
        cluster = self.start(flags=["--listen-client-http-urls", f"http://127.0.0.1:{port}",
                                    "--host-whitelist", "good.example", "--cors", "http://app.example"])
        url = f"http://127.0.0.1:{port}"
        good = ("-H", "Host: good.example")
        self.assertEqual(curl(f"http://{cluster.clients[0]}/health", PRIOR, *good)[1], 405)
        self.assertEqual(curl(url + "/health", PRIOR, *good)[:2], ("2", 200))
        self.assertEqual(curl(url + "/health", PRIOR)[:2], ("2", 421))
        _, _, headers, _ = curl(url + "/health", PRIOR, *good, "-H", "Origin: http://app.example")
        self.assertEqual(headers["access-control-allow-origin"], "http://app.example")
        _, _, headers, _ = curl(url + "/health", PRIOR, *good, "-H", "Origin: http://bad.example")
        self.assertNotIn("access-control-allow-origin", headers)

    def test_users(self):
        cluster = self.start()
        url = f"http://{cluster.clients[0]}"

        def post(path, fields, *more):
            _, status, _, body = curl(url + path, PRIOR, *more, body=json.dumps(fields))
            return status, json.loads(body)
        post("/v3/auth/user/add", {"name": "root", "password": "secret"})
        post("/v3/auth/user/grant", {"user": "root", "role": "root"})
        self.assertEqual(post("/v3/auth/enable", {})[0], 200)
        put = {"key": b64("k"), "value": b64("v")}
        status, body = post("/v3/kv/put", put)
        self.assertEqual((status, body["message"]), (400, "etcdserver: user name is empty"))
        _, body = post("/v3/auth/authenticate", {"name": "root", "password": "secret"})
        for header in (f"Authorization: {body['token']}", f"Authorization: Bearer {body['token']}",
                       f"Grpc-Metadata-Token: {body['token']}"):
            self.assertEqual(post("/v3/kv/put", put, "-H", header)[0], 200, header)
        self.assertEqual(post("/v3/kv/put", put, "-H", "Authorization: none")[0], 401)

    def test_over_tls(self):
        with tempfile.TemporaryDirectory() as folder:
            authority = Authority(folder, "authority")
            tls = Tls(authority, mutual=True)
            metrics, = free_ports(1)
            cluster = self.start(tls=tls, flags=["--listen-metrics-urls", f"https://127.0.0.1:{metrics}"])
            mine = ("--cacert", str(authority.cert), "--cert", str(tls.client[0]), "--key", str(tls.client[1]))
            for address in (cluster.clients[0], f"127.0.0.1:{metrics}"):
                url = f"https://{address}"
                self.assertEqual(curl(url + "/health", *mine, "--http2")[:2], ("2", 200))
                self.assertEqual(curl(url + "/health", *mine, "--http1.1")[:2], ("1.1", 200))
                self.assertEqual(curl(url + "/health", *mine, "--no-alpn")[:2], ("1.1", 200))
            url = f"https://{cluster.clients[0]}"
            fields = json.dumps({"key": b64("t"), "value": b64("x" * 100_000)})
            self.assertEqual(curl(url + "/v3/kv/put", *mine, "--http2", body=fields)[:2], ("2", 200))
            _, _, _, body = curl(url + "/v3/kv/range", *mine, "--http2", body=json.dumps({"key": b64("t")}))
            self.assertEqual(unb64(json.loads(body)["kvs"][0]["value"]), b"x" * 100_000)
            watch = json.dumps({"create_request": {"key": b64("t"), "start_revision": "1"}})
            with Streaming(url + "/v3/watch", *mine, "--http2", body=watch) as stream:
                self.assertTrue(stream.next()["result"]["created"])
                self.assertEqual(len(stream.next()["result"]["events"]), 1)

    def test_the_server_ends_under_open_requests(self):
        cluster = self.start()
        url = f"http://{cluster.clients[0]}"
        with concurrent.futures.ThreadPoolExecutor(8) as pool, \
                Streaming(url + "/v3/watch", body=json.dumps({"create_request": {"key": "YQ=="}})) as stream:
            self.assertTrue(stream.next()["result"]["created"])
            def ask():
                subprocess.run(["curl", "-s", PRIOR, "-o", "/dev/null", *[f"{url}/metrics"] * 30],
                               timeout=SECONDS_MAX, check=False)
            asked = [pool.submit(ask) for _ in range(8)]
            self.assertEqual(cluster.kill(0, signal.SIGTERM), 0)
            for one in asked:
                one.result()
            while stream.next() is not None:
                pass


def main():
    global ARGS
    parser = argparse.ArgumentParser()
    parser.add_argument("--conclave", required=True)
    ARGS, rest = parser.parse_known_args()
    done = unittest.main(argv=["http2_test", "-v", *rest], exit=False)
    return 0 if done.result.wasSuccessful() and done.result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main())
