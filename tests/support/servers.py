"""Real server processes of either kind, on free ports and empty data directories, for the tests in Python."""

import os
import pathlib
import random
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time

import grpc

START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 10


def memory_folder():
    """A folder whose fsync costs nothing, for runs that are about answers and not about disks; None if there is none."""
    shared = pathlib.Path("/dev/shm")
    roomy = shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 1 << 30
    return shared if roomy else None


def wait_for(condition, what, seconds):
    """Its value, as soon as it is true. `what` it was is said in the end, or asked for then."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"in vain waited {seconds} s for {what() if callable(what) else what}")
        time.sleep(0.05)  # between two looks at another process


def free_ports(count):
    """Ports below those that the system gives to outgoing connections: nobody takes them by chance before, or between
    two starts of, the servers that listen there."""
    ports = []
    while len(ports) < count:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


class Tls:
    """What secures the client ports of a cluster: a certificate of `authority` (pki.Authority) for the servers; with
    `mutual`, clients must show one too, and `client` is the one that the tests' own channels show."""

    def __init__(self, authority, mutual=False, client="client"):
        self.authority, self.mutual = authority, mutual
        self.server = authority.issue("server")
        self.client = authority.issue(client) if mutual else None

    @property
    def flags(self):
        flags = ["--cert-file", str(self.server[0]), "--key-file", str(self.server[1])]
        return flags + (["--trusted-ca-file", str(self.authority.cert), "--client-cert-auth"] if self.mutual else [])

    def credentials(self, client=None):
        client = client or self.client
        chain, key = (client[0].read_bytes(), client[1].read_bytes()) if client else (None, None)
        return grpc.ssl_channel_credentials(self.authority.cert.read_bytes(), key, chain)

    def context(self, client=None):
        """For sockets of one's own."""
        context = ssl.create_default_context(cafile=str(self.authority.cert))
        if client or self.client:
            context.load_cert_chain(*map(str, client or self.client))
        return context


class Cluster:
    """`members` processes of one binary; stop() removes their data. `prepare(cluster, member)` comes before a member's
    first start, when its ports are known."""

    def __init__(self, name, binary, members=1, prepare=None, flags=(), tls=None, folder=None):
        self.name, self.binary, self.flags, self.tls = name, binary, [*flags, *(tls.flags if tls else [])], tls
        self.scheme = "https" if tls else "http"
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"conclave-test-{name}-", dir=folder))
        ports = free_ports(2 * members)
        self.clients = [f"127.0.0.1:{port}" for port in ports[:members]]
        self.peers = [f"http://127.0.0.1:{port}" for port in ports[members:]]
        self.processes = [None] * members
        self.channels = [self.channel(member) for member in range(members)]
        for member in range(members):
            if prepare is not None:
                prepare(self, member)
            self.start(member)
        for member in range(members):
            self.wait(member)

    @property
    def endpoints(self):
        return ",".join(f"https://{client}" for client in self.clients) if self.tls else ",".join(self.clients)

    def channel(self, member=0, client=None):
        """A new connection; `client` is a certificate to show in place of the usual one."""
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
                   ("grpc.use_local_subchannel_pool", 1)]
        if self.tls:
            return grpc.secure_channel(self.clients[member], self.tls.credentials(client), options)
        return grpc.insecure_channel(self.clients[member], options)

    @property
    def initial_cluster(self):
        return ",".join(f"m{i}={p}" for i, p in enumerate(self.peers))

    def data_dir(self, member):
        return self.folder / f"m{member}"

    def log(self, member):
        return self.folder / f"m{member}.log"

    def start(self, member):
        with open(self.log(member), "ab") as log:
            self.processes[member] = subprocess.Popen(
                [self.binary, "--name", f"m{member}", "--data-dir", str(self.data_dir(member)),
                 "--listen-client-urls", f"{self.scheme}://{self.clients[member]}",
                 "--advertise-client-urls", f"{self.scheme}://{self.clients[member]}",
                 "--listen-peer-urls", self.peers[member],
                 "--initial-advertise-peer-urls", self.peers[member],
                 "--initial-cluster", self.initial_cluster, *self.flags],
                stdout=log, stderr=log)

    def wait(self, member):
        """Until the member answers a linearizable read."""
        read = self.unary("/etcdserverpb.KV/Range", member)
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                read(b"\x0a\x06health", timeout=1, wait_for_ready=True)  # key (field 1): "health"
                return
            except grpc.RpcError as error:
                if error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED):
                    return  # it serves, but only users who say who they are, or whom it knows
                if self.processes[member].poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{self.name} does not serve: {error.details()}\n"
                                     + self.log(member).read_text()[-2000:]) from error

    def unary(self, path, member=0):
        return self.channels[member].unary_unary(path)

    def kill(self, member, how=signal.SIGKILL):
        self.processes[member].send_signal(how)
        return self.processes[member].wait(timeout=STOP_SECONDS_MAX)

    def has_died(self, member=0):
        """True once the process has ended; gives one that is about to the time to."""
        try:
            self.processes[member].wait(timeout=1)
            return True
        except subprocess.TimeoutExpired:
            return False

    def dead(self):
        """The log's end of a member that has ended on its own, or None."""
        for member, process in enumerate(self.processes):
            if process.poll() is not None:
                return self.log(member).read_text()[-1500:]
        return None

    def stop(self):
        for channel in self.channels:
            channel.close()
        for process in self.processes:
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
