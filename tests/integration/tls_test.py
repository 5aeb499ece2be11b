"""TLS from the outside: Debian's etcdctl, curl and bare sockets against one binary, etcd's or ours. What both promise
is asked of both; what only we do, of us.

usage: tls_test.py --etcdctl PATH --server PATH --kind etcd|conclave
"""

import argparse
import contextlib
import os
import pathlib
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from pki import Authority  # noqa: E402
from servers import free_ports  # noqa: E402

PATIENCE_SECONDS = 40
FAILURES = []


def check(what, holds, detail=""):
    if not holds:
        FAILURES.append(what)
        print(f"FAILED {what} {detail}", flush=True)


def wait_for(what, condition, seconds=PATIENCE_SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            check(what, False, f"not within {seconds} s")
            return False
        time.sleep(0.05)  # between two looks at another process
    return True


class World:
    """One binary, and the certificates of the tests."""

    def __init__(self, arguments):
        self.kind = arguments.kind
        self.server, self.etcdctl = os.path.abspath(arguments.server), os.path.abspath(arguments.etcdctl)
        self.is_ours = self.kind == "conclave"
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="conclave-tls-"))
        self.ca = Authority(self.folder, "ca")
        self.stranger = Authority(self.folder, "stranger")
        self.server_cert = self.ca.issue("server")
        self.alice = self.ca.issue("alice")
        self.expired = self.ca.issue("expired", days=-1)
        self.mallory = self.stranger.issue("mallory")

    def close(self):
        shutil.rmtree(self.folder)

    def secure(self, *more):
        return ["--cert-file", self.server_cert[0], "--key-file", self.server_cert[1], *more]

    def mutual(self, *more):
        return self.secure("--trusted-ca-file", self.ca.cert, "--client-cert-auth", *more)


class Server:
    def __init__(self, world, flags, client_urls=None, scheme="https", members=1, member=0, peers=None,
                 peer_scheme="http", name=None):
        self.world = world
        self.port, peer = free_ports(2)
        peers = peers or [f"{peer_scheme}://127.0.0.1:{peer}"]
        name = name or f"m{member}"
        self.data = world.folder / f"{name}-{self.port}"
        self.log_path = world.folder / f"{name}-{self.port}.log"
        urls = client_urls or [f"{scheme}://127.0.0.1:{self.port}"]
        command = [world.server, "--name", name, "--data-dir", self.data,
                   "--listen-client-urls", ",".join(urls), "--advertise-client-urls", urls[0],
                   "--listen-peer-urls", peers[member], "--initial-advertise-peer-urls", peers[member],
                   "--initial-cluster", ",".join(f"m{i}={p}" for i, p in enumerate(peers)), *flags]
        if not world.is_ours:
            command += ["--logger", "zap"]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log, cwd=world.folder)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def ready(self):
        if self.process.poll() is not None:
            raise SystemExit(f"the server has ended:\n{self.log()[-3000:]}")
        return "serving client traffic" in self.log()

    def wait(self):
        if not wait_for("a server becomes ready", self.ready):
            raise SystemExit(self.log()[-3000:])
        return self

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def ctl(self, *arguments, endpoint=None, ca=None, cert=None, seconds=5):
        command = [self.world.etcdctl, "--endpoints", endpoint or f"https://127.0.0.1:{self.port}",
                   "--command-timeout", f"{seconds}s", "--dial-timeout", f"{seconds}s"]
        if ca:
            command += ["--cacert", ca]
        if cert:
            command += ["--cert", cert[0], "--key", cert[1]]
        done = subprocess.run([str(c) for c in [*command, *arguments]], capture_output=True, text=True,
                              env={**os.environ, "ETCDCTL_API": "3"}, timeout=90, check=False, cwd=self.world.folder)
        return done.returncode, done.stdout

    def get(self, ca=None, cert=None, context=None, path="/health"):
        """The first bytes of the answer, or the failure's text."""
        if context is None:
            context = ssl.create_default_context(cafile=str(ca)) if ca else ssl._create_unverified_context()
        if cert:
            context.load_cert_chain(*map(str, cert))
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=10) as raw, \
                    context.wrap_socket(raw, server_hostname="localhost") as stream:
                stream.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                return stream.recv(100).decode(errors="replace")
        except OSError as error:  # ssl.SSLError is one
            return f"failed: {error}"


def is_ok(answer):
    return answer.startswith("HTTP/1.1 200")


@contextlib.contextmanager
def running(world, flags, **more):
    server = Server(world, flags, **more)
    try:
        yield server.wait()
    finally:
        server.stop()


def test_server_certificates(world):
    with running(world, world.secure()) as server:
        check("put over TLS", server.ctl("put", "k", "v", ca=world.ca.cert)[0] == 0, server.log()[-500:])
        check("get over TLS", "v" in server.ctl("get", "k", ca=world.ca.cert)[1])
        check("an unknown authority is not believed",
              server.ctl("get", "k", ca=world.stranger.cert, seconds=1)[0] != 0)
        check("HTTP/1.1", is_ok(server.get(ca=world.ca.cert)))
        for version in ("--http1.1", "--http2"):
            done = subprocess.run(["curl", "-sS", version, "--cacert", world.ca.cert,
                                   f"https://127.0.0.1:{server.port}/health"], capture_output=True, text=True)
            check(f"curl {version}", '"health":"true"' in done.stdout, done.stdout + done.stderr)
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
            raw.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            try:
                answer = raw.recv(100)
            except ConnectionResetError:
                answer = b""
            check("plain text gets no health from a TLS port", b"true" not in answer, answer)
        check("the rejection is logged", wait_for(
            "a rejection in the log", lambda: "rejected connection" in server.log()))
        # A certificate replaced under a running server is shown to the next client.
        world.ca.issue("server", hosts=("DNS:renamed.example.com", "IP:127.0.0.1"))
        context = ssl.create_default_context(cafile=str(world.ca.cert))
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw, \
                context.wrap_socket(raw, server_hostname="renamed.example.com") as stream:
            names = [name for kind, name in stream.getpeercert()["subjectAltName"] if kind == "DNS"]
        check("a new certificate is taken up", names == ["renamed.example.com"], names)
        check("and served", server.ctl("get", "k", ca=world.ca.cert)[0] == 0)
        world.ca.issue("server")


def test_client_certificates(world):
    revoked = world.ca.issue("revoked")
    with running(world, world.mutual("--client-crl-file", world.ca.crl)) as server:
        check("mutual TLS", server.ctl("put", "k", "v", ca=world.ca.cert, cert=world.alice)[0] == 0)
        check("no certificate", server.ctl("get", "k", ca=world.ca.cert, seconds=1)[0] != 0)
        check("alice over HTTP", is_ok(server.get(ca=world.ca.cert, cert=world.alice)))
        for what, cert in (("nobody", None), ("a stranger", world.mallory), ("expired", world.expired)):
            answer = server.get(ca=world.ca.cert, cert=cert)
            check(f"{what} is refused", not is_ok(answer), answer)
        check("before the revocation", is_ok(server.get(ca=world.ca.cert, cert=revoked)))
        world.ca.revoke(revoked[0])
        check("revoked, in the running server", not is_ok(server.get(ca=world.ca.cert, cert=revoked)))
        check("alice is not revoked", is_ok(server.get(ca=world.ca.cert, cert=world.alice)))
        if world.is_ours:
            check("the reason is logged", "certificate revoked" in server.log(), server.log()[-800:])


def test_ciphers(world):
    flags = world.secure("--cipher-suites", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
    with running(world, flags) as server:
        for suite, works in (("ECDHE-ECDSA-AES128-GCM-SHA256", True), ("ECDHE-ECDSA-AES256-GCM-SHA384", False)):
            context = ssl.create_default_context(cafile=str(world.ca.cert))
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(suite)
            answer = server.get(context=context)
            check(f"{suite}: {works}", is_ok(answer) == works, answer)
    flags = world.secure("--cipher-suites", "TLS_NO_SUCH_SUITE")
    server = Server(world, flags)
    wait_for("an unknown suite ends the server", lambda: server.process.poll() is not None)
    check("an unknown suite is named", "TLS_NO_SUCH_SUITE" in server.log(), server.log()[-500:])
    server.stop()


def test_auto_tls(world):
    with running(world, ["--auto-tls"]) as server:
        check("self-signed", is_ok(server.get()))
        cert = server.data / "fixtures/client/cert.pem"
        check("the certificate is kept", cert.exists())
        if cert.exists():
            check("it can be believed", server.ctl("put", "k", "v", ca=cert)[0] == 0)


def test_unix_sockets(world):
    # The form that both take: a file in the working directory.
    port = free_ports(1)[0]
    urls = [f"https://127.0.0.1:{free_ports(1)[0]}", f"unix://localhost:{port}"]
    with running(world, world.secure(), client_urls=urls) as server:
        check("put through a unix socket",
              server.ctl("put", "k", "v", endpoint=f"unix://localhost:{port}")[0] == 0, server.log()[-500:])
        check("the socket is a file", (world.folder / f"localhost:{port}").is_socket())


def start_three(world, flags_of, peer_scheme="https"):
    peers = [f"{peer_scheme}://127.0.0.1:{port}" for port in free_ports(3)]
    return [Server(world, flags_of(i), scheme="http", member=i, peers=peers) for i in range(3)]


def test_peers(world):
    certs = [world.ca.issue("member") for _ in range(1)]
    flags = ["--peer-cert-file", certs[0][0], "--peer-key-file", certs[0][1], "--peer-trusted-ca-file",
             world.ca.cert, "--peer-client-cert-auth", "--peer-cert-allowed-cn", "member",
             "--peer-crl-file", world.ca.crl]
    servers = start_three(world, lambda i: flags)
    try:
        for server in servers:
            server.wait()
        for i, server in enumerate(servers):
            plain = f"http://127.0.0.1:{server.port}"
            check(f"three members, put at {i}", server.ctl("put", f"k{i}", "v", endpoint=plain)[0] == 0)
    finally:
        for server in servers:
            server.stop()


def test_peers_auto(world):
    servers = start_three(world, lambda i: ["--peer-auto-tls"])
    try:
        for server in servers:
            server.wait()
        check("put with --peer-auto-tls",
              servers[0].ctl("put", "k", "v", endpoint=f"http://127.0.0.1:{servers[1].port}")[0] == 0)
    finally:
        for server in servers:
            server.stop()


def peer_port_admits(world, port, cert):
    """Whether it says anything to whoever comes with this certificate."""
    context = ssl.create_default_context(cafile=str(world.ca.cert))
    context.load_cert_chain(*map(str, cert))
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as raw, \
                context.wrap_socket(raw, server_hostname="localhost") as stream:
            stream.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n".ljust(64))
            return stream.recv(100) != b""
    except OSError:
        return False


def test_peer_addresses(world):
    """A member's certificate must be made for where the member calls from, unless it names no place at all."""
    member = world.ca.issue("member")
    flags = ["--peer-cert-file", member[0], "--peer-key-file", member[1], "--peer-trusted-ca-file", world.ca.cert,
             "--peer-client-cert-auth"]
    cases = {"address": (("IP:127.0.0.1",), True), "name": (("DNS:localhost",), True),
             "either": (("IP:10.9.9.9", "DNS:localhost"), True), "none": (("email:a@example.com",), True),
             "other-address": (("IP:10.9.9.9",), False), "other-name": (("DNS:nowhere.invalid",), False),
             "wildcard": (("DNS:*.example.com",), False)}
    certs = {name: world.ca.issue(f"from-{name}", hosts=hosts) for name, (hosts, _) in cases.items()}
    port, = free_ports(1)
    with running(world, flags, scheme="http", peers=[f"https://127.0.0.1:{port}"]) as server:
        for name, (_, good) in cases.items():
            check(f"a member with {name}", peer_port_admits(world, port, certs[name]) == good)
        for text in ("x509: certificate is valid for 10.9.9.9, not 127.0.0.1",
                     "does not match any of DNSNames", "nowhere.invalid"):
            wait_for(f"{text} in the log", lambda text=text: text in server.log())
    port, = free_ports(1)
    with running(world, [*flags, "--experimental-peer-skip-client-san-verification"], scheme="http",
                 peers=[f"https://127.0.0.1:{port}"]):
        check("nobody looks if that is switched off", peer_port_admits(world, port, certs["other-address"]))


# ---- What only we promise.


def test_peer_refusals(world):
    member, intruder = world.ca.issue("member"), world.ca.issue("intruder")

    def flags_of(i):
        cert = intruder if i == 2 else member
        return ["--peer-cert-file", cert[0], "--peer-key-file", cert[1], "--peer-trusted-ca-file", world.ca.cert,
                "--peer-client-cert-auth", "--peer-cert-allowed-cn", "member"]
    servers = start_three(world, flags_of)
    try:
        servers[0].wait()
        servers[1].wait()
        check("the two with the right name go on", servers[0].ctl(
            "put", "k", "v", endpoint=f"http://127.0.0.1:{servers[0].port}")[0] == 0)
        wait_for("the intruder is turned away", lambda: any(
            "rejected connection on peer endpoint" in s.log() and
            "client certificate authentication failed" in s.log() for s in servers[:2]))
        check("and never ready", "ready to serve" not in servers[2].log())
    finally:
        for server in servers:
            server.stop()


def test_authorities_change(world):
    bundle = world.folder / "bundle.pem"
    bundle.write_bytes(world.ca.cert.read_bytes())
    with running(world, world.secure("--trusted-ca-file", bundle, "--client-cert-auth")) as server:
        check("a stranger before", not is_ok(server.get(ca=world.ca.cert, cert=world.mallory)))
        bundle.write_bytes(world.ca.cert.read_bytes() + world.stranger.cert.read_bytes())
        check("a stranger after", is_ok(server.get(ca=world.ca.cert, cert=world.mallory)))
        bundle.write_text("nonsense")
        check("nonsense is not taken up", is_ok(server.get(ca=world.ca.cert, cert=world.alice)))
        check("and logged", "cannot load changed TLS files" in server.log())


def test_versions_and_hostnames(world):
    flags = world.mutual("--tls-min-version", "TLS1.3", "--client-cert-allowed-hostname", "good.example.com")
    good = world.ca.issue("good", hosts=("DNS:good.example.com",))
    with running(world, flags) as server:
        check("allowed host", is_ok(server.get(ca=world.ca.cert, cert=good)))
        check("another host", not is_ok(server.get(ca=world.ca.cert, cert=world.alice)))
        old = ssl.create_default_context(cafile=str(world.ca.cert))
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        check("TLS 1.2 is refused", not is_ok(server.get(context=old, cert=good)))


def test_both_on_one_port(world):
    port = free_ports(1)[0]
    metrics = free_ports(1)[0]
    urls = [f"https://127.0.0.1:{port}", f"http://127.0.0.1:{port}", f"unixs://{world.folder}/secure.sock"]
    flags = world.secure("--listen-metrics-urls", f"https://127.0.0.1:{metrics}")
    with running(world, flags, client_urls=urls) as server:
        server.port = port
        check("TLS", server.ctl("put", "k", "v", ca=world.ca.cert)[0] == 0)
        check("plain", server.ctl("put", "k", "v", endpoint=f"http://127.0.0.1:{port}")[0] == 0)
        done = subprocess.run(["curl", "-sS", "--cacert", world.ca.cert, "--unix-socket",
                               f"{world.folder}/secure.sock", "https://localhost/version"],
                              capture_output=True, text=True)
        check("unixs", "etcdserver" in done.stdout, done.stderr)
        server.port = metrics
        check("metrics over TLS", is_ok(server.get(ca=world.ca.cert, path="/metrics")))


def memory_kib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def test_hostile_connections(world):
    """Half handshakes, silence and garbage, a thousand of each at most: all are cut, and nothing stays."""
    dice = random.Random(7)
    with running(world, world.secure()) as server:
        server.ctl("put", "k", "v", ca=world.ca.cert)
        before = memory_kib(server.process.pid)
        sockets = []
        for i in range(1000):
            client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
            with contextlib.suppress(OSError):  # it may be cut already
                if i % 3 == 0:
                    client.sendall(bytes([0x16, 3, 1, 2, 0, 1]))  # the beginning of a ClientHello
                elif i % 3 == 1:
                    client.sendall(bytes([0x16, 3, 1]) + dice.randbytes(dice.randrange(1, 2000)))
            sockets.append(client)
        during = memory_kib(server.process.pid)
        check("memory under a thousand hostile connections", during - before < 100 * 1024, f"{before} -> {during} KiB")
        check("a client is served meanwhile", server.ctl("get", "k", ca=world.ca.cert)[0] == 0)

        def is_cut(client):
            client.settimeout(PATIENCE_SECONDS)
            try:
                while client.recv(4096):
                    pass
            except ConnectionResetError:
                pass
            except TimeoutError:
                return False
            return True
        check("all are cut", all(is_cut(client) for client in sockets))
        for client in sockets:
            client.close()
        lines = server.log().count("rejected connection on client endpoint")
        check("the log is not theirs to fill", 0 < lines < 100, lines)
        for _ in range(300):
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client, \
                    contextlib.suppress(OSError):
                client.sendall(dice.randbytes(dice.randrange(1, 500)))
        check("served after garbage", server.ctl("get", "k", ca=world.ca.cert)[0] == 0)
        check("still the same process", server.process.poll() is None)


SHARED = [test_server_certificates, test_client_certificates, test_ciphers, test_auto_tls, test_unix_sockets, test_peers,
          test_peers_auto, test_peer_addresses]
OURS = [test_peer_refusals, test_authorities_change, test_versions_and_hostnames, test_both_on_one_port,
        test_hostile_connections]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--etcdctl", required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("--kind", choices=["etcd", "conclave"], required=True)
    parser.add_argument("--only", help="a part of a test's name")
    arguments = parser.parse_args()
    world = World(arguments)
    tests = SHARED + (OURS if world.is_ours else [])
    try:
        for test in tests:
            if arguments.only and arguments.only not in test.__name__:
                continue
            began = time.monotonic()
            test(world)
            print(f"{test.__name__}: {time.monotonic() - began:.1f} s", flush=True)
    finally:
        world.close()
    print(f"{arguments.kind}: {len(FAILURES)} failures")
    return 1 if FAILURES else 0


if __name__ == "__main__":
    sys.exit(main())
