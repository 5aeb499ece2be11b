"""Real server processes of either kind, on free ports and empty data directories, for the tests in Python."""

import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import grpc

START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 10


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


class Cluster:
    """`members` processes of one binary; stop() removes their data. `prepare(cluster, member)` comes before a member's
    first start, when its ports are known."""

    def __init__(self, name, binary, members=1, prepare=None, flags=()):
        self.name, self.binary, self.flags = name, binary, list(flags)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"conclave-test-{name}-"))
        ports = free_ports(2 * members)
        self.clients = [f"127.0.0.1:{port}" for port in ports[:members]]
        self.peers = [f"http://127.0.0.1:{port}" for port in ports[members:]]
        self.processes = [None] * members
        self.channels = [grpc.insecure_channel(
            client, options=[("grpc.max_receive_message_length", -1),
                             ("grpc.use_local_subchannel_pool", 1)]) for client in self.clients]
        for member in range(members):
            if prepare is not None:
                prepare(self, member)
            self.start(member)
        for member in range(members):
            self.wait(member)

    @property
    def endpoints(self):
        return ",".join(self.clients)

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
                 "--listen-client-urls", f"http://{self.clients[member]}",
                 "--advertise-client-urls", f"http://{self.clients[member]}",
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
                if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
                    return  # it serves, but only users who say who they are
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
