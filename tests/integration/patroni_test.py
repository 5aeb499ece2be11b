"""A cluster of databases that keeps its leader in the store the way Patroni does it through the JSON gateway: each
member holds a lease, the leader's key is created only if it is absent, everybody follows the cluster's prefix by one
long watch, and a leader that stops renewing is followed by another member. Against etcd and against us.

usage: patroni_test.py --etcd PATH --conclave PATH
"""

import argparse
import json
import pathlib
import queue
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
from gateway import SECONDS_MAX, Stream, b64, post, prefix, request, unb64  # noqa: E402
from servers import Cluster  # noqa: E402

ARGS = None
TTL = 3


class Member:
    """One database's agent."""

    def __init__(self, test, scope, name):
        self.test, self.scope, self.name = test, f"/service/{scope}/", name
        self.address = test.cluster.clients[0]
        self.lease = self.ok("/v3/lease/grant", {"TTL": TTL})["ID"]
        self.put("members/" + name, json.dumps({"role": "replica"}), lease=self.lease)

    def ok(self, path, fields):
        status, body = post(self.address, path, fields)
        self.test.assertEqual(status, 200, f"{path} {fields}: {body}")
        return body

    def put(self, key, value, **more):
        return self.ok("/v3/kv/put", {"key": b64(self.scope + key), "value": b64(value), **more})

    def renew(self):
        """The seconds that are left, 0 for a lease that has ended."""
        status, _, body = request(self.address, "POST", "/v3/lease/keepalive", json.dumps({"ID": self.lease}))
        self.test.assertEqual(status, 200)
        return int(json.loads(body.splitlines()[0])["result"].get("TTL", 0))

    def view(self):
        """The whole cluster: key below the scope -> (value, mod_revision); and the revision of the view."""
        found = self.ok("/v3/kv/range", prefix(self.scope))
        kvs = {unb64(kv["key"]).decode()[len(self.scope):]: (unb64(kv.get("value", "")).decode(), kv["mod_revision"])
               for kv in found.get("kvs", [])}
        return kvs, int(found["header"]["revision"])

    def attempt_to_lead(self):
        key = b64(self.scope + "leader")
        return self.ok("/v3/kv/txn", {
            "compare": [{"key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0"}],
            "success": [{"request_put": {"key": key, "value": b64(self.name), "lease": self.lease}}]
        }).get("succeeded", False)

    def update_as_leader(self, optime):
        """A write that only the leader's own key allows."""
        key = b64(self.scope + "leader")
        return self.ok("/v3/kv/txn", {
            "compare": [{"key": key, "target": "VALUE", "result": "EQUAL", "value": b64(self.name)}],
            "success": [{"request_put": {"key": b64(self.scope + "status"), "value": b64(str(optime))}}]
        }).get("succeeded", False)

    def step_down(self):
        key = b64(self.scope + "leader")
        return self.ok("/v3/kv/txn", {
            "compare": [{"key": key, "target": "VALUE", "result": "EQUAL", "value": b64(self.name)}],
            "success": [{"request_delete_range": {"key": key}}]}).get("succeeded", False)


class Follower(threading.Thread):
    """The cache of the cluster that a watch keeps up to date."""

    def __init__(self, address, scope, revision):
        super().__init__(daemon=True)
        self.stream = Stream(address, "/v3/watch", {"create_request": {
            **prefix(scope), "start_revision": str(revision + 1), "progress_notify": True}})
        self.scope, self.events = scope, queue.Queue()
        self.start()

    def run(self):
        try:
            while (line := self.stream.next()) is not None:
                for event in line["result"].get("events", []):
                    name = unb64(event["kv"]["key"]).decode()[len(self.scope):]
                    self.events.put((event.get("type", "PUT"), name, unb64(event["kv"].get("value", "")).decode()))
        except (OSError, ValueError, AttributeError):
            pass  # closed

    def expect(self, kind, name):
        deadline = time.monotonic() + SECONDS_MAX
        while True:
            event = self.events.get(timeout=max(0.1, deadline - time.monotonic()))
            if event[:2] == (kind, name):
                return event[2]


class Cases:
    def test_failover_when_the_leader_stops_renewing(self):
        first, second = Member(self, "failover", "one"), Member(self, "failover", "two")
        view, revision = second.view()
        self.assertEqual(sorted(view), ["members/one", "members/two"])
        follower = Follower(second.address, second.scope, revision)
        self.addCleanup(follower.stream.close)
        self.assertTrue(first.attempt_to_lead())
        self.assertEqual(follower.expect("PUT", "leader"), "one")
        self.assertFalse(second.attempt_to_lead())
        self.assertTrue(first.update_as_leader(100))
        self.assertEqual(follower.expect("PUT", "status"), "100")
        self.assertFalse(second.update_as_leader(200))

        done = threading.Event()
        renewing = threading.Thread(target=self.renew_until, args=(second, done))
        renewing.start()
        self.addCleanup(renewing.join)
        self.addCleanup(done.set)
        follower.expect("DELETE", "leader")  # the first one has fallen silent
        self.assertTrue(second.attempt_to_lead())
        self.assertEqual(follower.expect("PUT", "leader"), "two")
        self.assertEqual(first.renew(), 0)
        status, body = post(first.address, "/v3/kv/put",
                            {"key": b64(first.scope + "members/one"), "lease": first.lease})
        self.assertEqual((status, body["code"], body["error"]),
                         (404, 5, "etcdserver: requested lease not found"))

    def renew_until(self, member, done):
        while not done.wait(TTL / 6):
            member.renew()

    def test_a_planned_switchover(self):
        first, second = Member(self, "switchover", "one"), Member(self, "switchover", "two")
        _, revision = first.view()
        follower = Follower(first.address, first.scope, revision)
        self.addCleanup(follower.stream.close)
        self.assertTrue(first.attempt_to_lead())
        second.put("failover", json.dumps({"leader": "one", "candidate": "two"}))
        self.assertEqual(json.loads(follower.expect("PUT", "failover"))["candidate"], "two")
        self.assertTrue(first.step_down())
        self.assertFalse(first.step_down())
        follower.expect("DELETE", "leader")
        self.assertGreater(second.renew(), 0)
        self.assertTrue(second.attempt_to_lead())
        self.assertEqual(second.view()[0]["leader"][0], "two")

    def test_the_version_and_the_members_are_told(self):
        address = self.cluster.clients[0]
        status, _, body = request(address, "GET", "/version")
        self.assertEqual(status, 200)
        self.assertRegex(json.loads(body)["etcdcluster"], r"^3\.\d+\.\d+$")
        status, body = post(address, "/v3/cluster/member/list", {})
        self.assertEqual(status, 200)
        self.assertEqual(body["members"][0]["clientURLs"], [f"http://{address}"])


class OnConclave(Cases, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster("conclave", ARGS.conclave)
        cls.addClassCleanup(cls.cluster.stop)


class OnEtcd(Cases, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster("etcd", ARGS.etcd)
        cls.addClassCleanup(cls.cluster.stop)


def main():
    global ARGS
    parser = argparse.ArgumentParser()
    parser.add_argument("--etcd", required=True)
    parser.add_argument("--conclave", required=True)
    ARGS, rest = parser.parse_known_args()
    done = unittest.main(argv=["patroni_test", "-v", *rest], exit=False)
    return 0 if done.result.wasSuccessful() and done.result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main())
