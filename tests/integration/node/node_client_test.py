"""npm's package etcd3 on Node against us: plain, and with a user over mutual TLS. Skipped, with a line that says so,
where Node or the package is not there (NODE_PATH may say where it is).

usage: node_client_test.py --messages FOLDER --conclave PATH
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent.parent / "support"))
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from pki import Authority  # noqa: E402
from servers import Cluster, Tls  # noqa: E402

SKIPPED = 77
SECONDS_MAX = 120
PROGRAM = pathlib.Path(__file__).parent / "client.js"


def run(what, *arguments):
    done = subprocess.run(["node", str(PROGRAM), *map(str, arguments)], capture_output=True, text=True, check=False,
                          timeout=SECONDS_MAX)
    if done.returncode != 0 or done.stdout != "ok\n":
        raise SystemExit(f"{what}: {done.returncode} {done.stdout} {done.stderr}")
    print(f"{what}: ok")


def main():
    parser = argparse.ArgumentParser()
    for name in ("--messages", "--conclave"):
        parser.add_argument(name, required=True)
    args = parser.parse_args()
    if not shutil.which("node") or subprocess.run(["node", "-e", "require('etcd3')"], capture_output=True,
                                                  check=False).returncode != 0:
        print("skipped: there is no Node with the package etcd3 (npm install etcd3; NODE_PATH=.../node_modules)")
        return SKIPPED
    sys.path.insert(0, args.messages)
    from protocol import Caller, set_up_users
    plain = Cluster("conclave", args.conclave)
    try:
        run("plain", plain.endpoints)
    finally:
        plain.stop()
    folder = tempfile.mkdtemp(prefix="conclave-node-")
    tls = Tls(Authority(folder, "ca"), mutual=True, client="root")
    secure = Cluster("conclave", args.conclave, tls=tls)
    try:
        set_up_users(Caller(secure.channels[0]))
        run("with a user over mutual TLS", secure.endpoints, tls.authority.cert, *tls.client)
    finally:
        secure.stop()
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
