"""A real server process of either kind, on free ports and an empty data directory."""

import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

import grpc

START_SECONDS_MAX = 30


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One member that serves; stop() removes its data."""

    def __init__(self, name, binary):
        self.name = name
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"conformance-{name}-"))
        self.client = f"127.0.0.1:{free_port()}"
        peer = f"http://127.0.0.1:{free_port()}"
        self.log = open(self.folder / "log", "wb")
        self.process = subprocess.Popen(
            [binary, "--name", "m0", "--data-dir", str(self.folder / "data"),
             "--listen-client-urls", f"http://{self.client}",
             "--advertise-client-urls", f"http://{self.client}",
             "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
             "--initial-cluster", f"m0={peer}"],
            stdout=self.log, stderr=self.log)
        self.channel = grpc.insecure_channel(
            self.client, options=[("grpc.max_receive_message_length", -1),
                                  ("grpc.use_local_subchannel_pool", 1)])
        self._wait()

    def _wait(self):
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                # A linearizable read of the key "health": field 1.
                self.unary("/etcdserverpb.KV/Range")(b"\x0a\x06health", timeout=1, wait_for_ready=True)
                return
            except grpc.RpcError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(
                        f"{self.name} does not serve: {error.details()}\n"
                        + (self.folder / "log").read_text()[-2000:]) from error

    def unary(self, path):
        return self.channel.unary_unary(path)

    def stop(self):
        self.channel.close()
        self.process.kill()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
