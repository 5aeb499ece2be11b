"""Python's etcd3 (python3-etcd3) against us: what a service in Python does with it.

usage: python_client_test.py --conclave PATH
"""

import argparse
import pathlib
import queue
import shutil
import sys
import tempfile
import threading
import unittest

import etcd3
import grpc

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
sys.path.insert(0, str(pathlib.Path(__file__).parent))
from gateway import post, prefix  # noqa: E402
from pki import Authority  # noqa: E402
from servers import Cluster, Tls  # noqa: E402

EVENT_SECONDS_MAX = 10
CLUSTER = None
ARGS = None


def connect():
    host, port = CLUSTER.clients[0].split(":")
    return etcd3.client(host=host, port=int(port))


class KeyValues(unittest.TestCase):
    def setUp(self):
        self.client = connect()
        self.client.delete_prefix("py/")

    def test_put_get_delete(self):
        self.client.put("py/a", "1")
        value, metadata = self.client.get("py/a")
        self.assertEqual(value, b"1")
        self.assertEqual(metadata.version, 1)
        self.assertEqual(metadata.create_revision, metadata.mod_revision)
        self.assertTrue(self.client.delete("py/a"))
        self.assertFalse(self.client.delete("py/a"))
        self.assertEqual(self.client.get("py/a"), (None, None))

    def test_prefix_range_and_order(self):
        for name in ("c", "a", "b"):
            self.client.put(f"py/{name}", name)
        found = [value for value, _ in self.client.get_prefix("py/", sort_order="descend", sort_target="key")]
        self.assertEqual(found, [b"c", b"b", b"a"])
        found = [value for value, _ in self.client.get_range("py/a", "py/c")]
        self.assertEqual(sorted(found), [b"a", b"b"])

    def test_put_if_not_exists_and_replace(self):
        self.assertTrue(self.client.put_if_not_exists("py/once", "1"))
        self.assertFalse(self.client.put_if_not_exists("py/once", "2"))
        self.assertTrue(self.client.replace("py/once", "1", "3"))
        self.assertFalse(self.client.replace("py/once", "1", "4"))
        self.assertEqual(self.client.get("py/once")[0], b"3")

    def test_transaction(self):
        tx = self.client.transactions
        done, responses = self.client.transaction(
            compare=[tx.version("py/t") == 0],
            success=[tx.put("py/t", "new"), tx.get("py/t")],
            failure=[tx.get("py/t")])
        self.assertTrue(done)
        self.assertEqual(responses[1][0][0], b"new")
        done, _ = self.client.transaction(compare=[tx.value("py/t") == "other"], success=[],
                                          failure=[tx.delete("py/t")])
        self.assertFalse(done)
        self.assertIsNone(self.client.get("py/t")[0])

    def test_compaction(self):
        self.client.put("py/x", "1")
        revision = self.client.get("py/x")[1].mod_revision
        self.client.put("py/x", "2")
        self.client.compact(revision)
        with self.assertRaises(Exception):
            self.client.compact(revision)


class Watching(unittest.TestCase):
    def test_a_callback_hears_puts_and_deletes(self):
        client, events = connect(), queue.Queue()
        watch = client.add_watch_callback("pyw/a", lambda response: [events.put(e) for e in response.events])
        client.put("pyw/a", "1")
        client.delete("pyw/a")
        first, second = (events.get(timeout=EVENT_SECONDS_MAX) for _ in range(2))
        self.assertIsInstance(first, etcd3.events.PutEvent)
        self.assertEqual(first.value, b"1")
        self.assertIsInstance(second, etcd3.events.DeleteEvent)
        client.cancel_watch(watch)

    def test_history_from_a_revision(self):
        client = connect()
        client.put("pyw/h", "1")
        start = client.get("pyw/h")[1].mod_revision
        client.put("pyw/h", "2")
        events, cancel = client.watch("pyw/h", start_revision=start)
        self.assertEqual([next(events).value for _ in range(2)], [b"1", b"2"])
        cancel()


class LeasesAndLocks(unittest.TestCase):
    def test_a_lease_takes_its_keys_along(self):
        client = connect()
        lease = client.lease(60)
        client.put("pyl/a", "1", lease)
        self.assertEqual(lease.keys, [b"pyl/a"])
        self.assertLessEqual(lease.remaining_ttl, 60)
        self.assertEqual([r.TTL for r in lease.refresh()], [60])
        lease.revoke()
        self.assertIsNone(client.get("pyl/a")[0])

    def test_locks_exclude(self):
        first, second = connect(), connect()
        lock, other = first.lock("py-lock", ttl=30), second.lock("py-lock", ttl=30)
        self.assertTrue(lock.acquire(timeout=5))
        self.assertFalse(other.acquire(timeout=0))
        taken = threading.Event()

        def take():
            if other.acquire(timeout=EVENT_SECONDS_MAX):
                taken.set()

        waiter = threading.Thread(target=take)
        waiter.start()
        self.assertTrue(lock.release())
        waiter.join()
        self.assertTrue(taken.is_set())
        other.release()


class ClusterCalls(unittest.TestCase):
    def test_status_and_members(self):
        client = connect()
        status = client.status()
        self.assertTrue(status.version)
        self.assertEqual([member.name for member in client.members], ["m0"])
        self.assertEqual(status.leader.name, "m0")


class WithUserAndCertificates(unittest.TestCase):
    """A user of few rights over mutual TLS."""

    def setUp(self):
        folder = tempfile.mkdtemp(prefix="conclave-python-")
        self.addCleanup(shutil.rmtree, folder)
        self.tls = Tls(Authority(folder, "ca"), mutual=True, client="root")
        self.cluster = Cluster("conclave", ARGS.conclave, flags=["--bcrypt-cost", "4"], tls=self.tls)
        self.addCleanup(self.cluster.stop)
        # Through the gateway: the package brings generated messages of its own, which exclude ours.
        for path, fields in (
                ("user/add", {"name": "root", "password": "root"}), ("user/grant", {"user": "root", "role": "root"}),
                ("user/add", {"name": "ann", "password": "ann"}), ("role/add", {"name": "some"}),
                ("role/grant", {"name": "some", "perm": {"permType": "READWRITE", **prefix("a")}}),
                ("user/grant", {"user": "ann", "role": "some"}), ("enable", {})):
            status, body = post(self.cluster.clients[0], f"/v3/auth/{path}", fields, context=self.tls.context())
            self.assertEqual(status, 200, body)

    def connect(self, user, password):
        host, port = self.cluster.clients[0].split(":")
        cert, key = map(str, self.tls.client)
        return etcd3.client(host=host, port=int(port), ca_cert=str(self.tls.authority.cert), cert_cert=cert,
                            cert_key=key, user=user, password=password)

    def test_what_is_the_users_and_what_is_not(self):
        ann = self.connect("ann", "ann")
        ann.put("a/1", "one")
        self.assertEqual(ann.get("a/1")[0], b"one")
        self.assertEqual([value for value, _ in ann.get_prefix("a/")], [b"one"])
        with self.assertRaises(grpc.RpcError) as failed:
            ann.put("secret", "x")
        self.assertEqual(failed.exception.details(), "etcdserver: permission denied")
        with self.assertRaises(grpc.RpcError):
            list(ann.get_all())
        root = self.connect("root", "root")
        root.put("secret", "x")
        self.assertEqual(root.get("secret")[0], b"x")

    def test_a_wrong_password_is_refused(self):
        with self.assertRaises(Exception) as failed:
            self.connect("ann", "wrong").get("a/1")
        self.assertIn("authentication failed", str(failed.exception))

    def test_locks_and_leases(self):
        ann = self.connect("ann", "ann")
        lease = ann.lease(60)
        ann.put("a/leased", "x", lease)
        self.assertEqual(lease.keys, [b"a/leased"])
        lease.revoke()
        self.assertIsNone(ann.get("a/leased")[0])


def main():
    global CLUSTER, ARGS
    parser = argparse.ArgumentParser()
    parser.add_argument("--conclave", required=True)
    ARGS = parser.parse_args()
    CLUSTER = Cluster("conclave", ARGS.conclave)
    try:
        done = unittest.main(argv=["python_client_test"], exit=False)
    finally:
        CLUSTER.stop()
    return 0 if done.result.wasSuccessful() and done.result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main())
