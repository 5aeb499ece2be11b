"""The real Patroni with real PostgreSQL servers (Debian's packages), which keep their leader with us: they elect one,
another one follows when it dies, the first comes back as a replica, and all of it outlives a restart of ours.

Skipped, with a line that says so, where the packages are not installed.

usage: real_patroni_test.py --conclave PATH
"""

import argparse
import contextlib
import json
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent.parent / "support"))
from servers import Cluster, free_ports  # noqa: E402

PATIENCE_SECONDS = 180
SKIPPED = 77
USER = "postgres"

CONFIG = """
scope: test
name: {name}
restapi: {{listen: "127.0.0.1:{rest}", connect_address: "127.0.0.1:{rest}"}}
etcd3: {{hosts: [{hosts}], protocol: http}}
bootstrap:
  dcs: {{ttl: 20, loop_wait: 2, retry_timeout: 5, maximum_lag_on_failover: 1048576}}
  initdb: [{{encoding: UTF8}}, {{auth: trust}}, no-sync]
  pg_hba: ["host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust", "local all all trust"]
postgresql:
  listen: "127.0.0.1:{port}"
  connect_address: "127.0.0.1:{port}"
  data_dir: {folder}/{name}
  bin_dir: {bin_dir}
  pgpass: {folder}/{name}.pgpass
  authentication: {{superuser: {{username: postgres}}, replication: {{username: replicator}}}}
  parameters: {{unix_socket_directories: {folder}, fsync: off, shared_buffers: 16MB, max_connections: 20}}
"""


def wait_for(what, condition):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with contextlib.suppress(OSError, ValueError):
            if value := condition():
                return value
        if time.monotonic() > deadline:
            raise SystemExit(f"in vain waited for: {what}")
        time.sleep(0.2)


class Member:
    def __init__(self, folder, bin_dir, name, hosts):
        self.folder, self.bin_dir, self.name = folder, bin_dir, name
        self.rest, self.port = free_ports(2)
        self.config = folder / f"{name}.yml"
        self.config.write_text(CONFIG.format(name=name, rest=self.rest, port=self.port, hosts=", ".join(hosts),
                                             folder=folder, bin_dir=bin_dir))
        self.process = None

    def start(self):
        with open(self.folder / f"{self.name}.log", "ab") as log:
            self.process = subprocess.Popen(
                ["patroni", str(self.config)], stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
                **as_user())

    def die(self):
        """Patroni and its PostgreSQL, without a word."""
        pid_file = self.folder / self.name / "postmaster.pid"
        postmaster = int(pid_file.read_text().split()[0]) if pid_file.exists() else None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if postmaster:
            with contextlib.suppress(ProcessLookupError):
                os.kill(postmaster, signal.SIGKILL)

    def cluster(self):
        """Name -> role and state of each member, as this one sees them."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.rest}/cluster", timeout=5) as response:
            return {m["name"]: (m["role"], m["state"]) for m in json.load(response)["members"]}

    def sql(self, text):
        done = subprocess.run([f"{self.bin_dir}/psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-tAc", text,
                               "postgres"], capture_output=True, text=True, check=False, timeout=60, cwd=self.folder)
        return done.stdout.strip() if done.returncode == 0 else None

    def log(self):
        return (self.folder / f"{self.name}.log").read_text(errors="replace")[-3000:]


def as_user():
    """PostgreSQL does not run as root."""
    return {"user": USER, "group": USER, "extra_groups": []} if os.getuid() == 0 else {}


def leader_of(witness, members):
    told = witness.cluster()
    return next((m for m in members if told.get(m.name) == ("leader", "running")), None)


def story(store, members):
    first, second = members
    first.start()
    wait_for("a leader", lambda: leader_of(first, members))
    second.start()
    wait_for("a replica", lambda: first.cluster().get("p1", ("", ""))[1] in ("running", "streaming"))
    wait_for("a table", lambda: first.sql("create table t (n int)") is not None)
    if first.sql("insert into t select generate_series(1, 1000)") is None:
        raise SystemExit("no rows")
    wait_for("rows at the replica", lambda: second.sql("select count(*) from t") == "1000")
    print("elected, and a replica follows")

    first.die()
    wait_for("a second leader", lambda: leader_of(second, [second]))
    wait_for("its writes", lambda: second.sql("insert into t values (1001)") is not None)
    print("failed over")

    first.start()
    wait_for("the first as a replica", lambda: second.cluster().get("p0", ("", ""))[0] == "replica"
             and first.sql("select count(*) from t") == "1001")
    print("recovered")

    # The store goes and comes back: the leader steps down meanwhile if it must, and leads again.
    store.kill(0)
    store.start(0)
    store.wait(0)
    leader = wait_for("a leader after the store's restart", lambda: leader_of(second, members))
    wait_for("writes after it", lambda: leader.sql("insert into t values (1002)") is not None)
    wait_for("rows at both", lambda: all(m.sql("select count(*) from t") == "1002" for m in members))
    print("outlived a restart of the store")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--conclave", required=True)
    args = parser.parse_args()
    bin_dirs = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))
    with contextlib.suppress(KeyError):
        pwd.getpwnam(USER)
        if shutil.which("patroni") and bin_dirs:
            return run(args, bin_dirs[-1])
    print("skipped: Debian's packages patroni, python3-etcd and postgresql are not installed")
    return SKIPPED


def run(args, bin_dir):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="conclave-patroni-"))
    if os.getuid() == 0:
        shutil.chown(folder, USER, USER)
    store = Cluster("conclave", args.conclave)
    members = [Member(folder, bin_dir, f"p{i}", store.clients) for i in range(2)]
    try:
        story(store, members)
    except SystemExit:
        for member in members:
            print(f"--- {member.name}\n{member.log() if member.process else ''}")
        raise
    finally:
        for member in members:
            if member.process:
                member.die()
        store.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
