"""Who is let in, and to what, through the real ports: names in certificates, JSON web tokens, the gateway over TLS, and
locks and elections of users. What both promise is asked of etcd too.

usage: access_test.py --messages FOLDER --conclave PATH --etcd PATH
"""

import argparse
import pathlib
import shutil
import sys
import tempfile
import time
import unittest

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
sys.path.insert(0, str(pathlib.Path(__file__).parent))
import jwt  # noqa: E402
from gateway import Stream, b64, post, request  # noqa: E402
from pki import Authority  # noqa: E402
from servers import Cluster, Tls, wait_for  # noqa: E402

ARGS = None
FOLDER = None
QUICK_HASHES = ["--bcrypt-cost", "4"]
PATIENCE_SECONDS = 30

DENIED = "etcdserver: permission denied"
NOBODY = "etcdserver: user name is empty"
BAD_TOKEN = "etcdserver: invalid auth token"
OLD_TOKEN = "etcdserver: revision of auth store is old"


class ServerTest(unittest.TestCase):
    """On one server of `kind`."""

    kind = "conclave"

    def start(self, flags=(), tls=None, members=1):
        binary = ARGS.conclave if self.kind == "conclave" else ARGS.etcd
        cluster = Cluster(self.kind, binary, members, flags=[*QUICK_HASHES, *flags], tls=tls)
        self.addCleanup(cluster.stop)
        return cluster

    def with_users(self, flags=(), tls=None, members=1):
        self.cluster = self.start(flags, tls, members)
        self.nobody = Caller(self.cluster.channels[0])
        set_up_users(self.nobody)
        self.root = self.nobody.log_in("root", "root")
        self.ann = self.nobody.log_in("ann", "ann")

    def refused(self, text, caller, method, **fields):
        self.assertEqual(caller.refusal(method, **fields), text, f"{method} {fields}")

    def allowed(self, caller, method, **fields):
        self.refused("", caller, method, **fields)


class LocksAndElectionsOfUsers(ServerTest):
    """The server's own recipes work with the caller's rights, not with its own."""

    def setUp(self):
        self.with_users()

    def lease(self):
        return self.root.call("LeaseGrant", TTL=60).ID

    def test_a_lock_needs_permission_for_its_keys(self):
        self.refused(DENIED, self.ann, "Lock", name=b"b/lock", lease=self.lease())
        self.refused(DENIED, self.ann, "Lock", name=b"r", lease=self.lease())
        self.refused(NOBODY, self.nobody, "Lock", name=b"a/lock", lease=self.lease())
        self.refused(BAD_TOKEN, self.nobody.with_token("nonsense.1"), "Lock", name=b"a/lock", lease=self.lease())
        self.assertEqual(self.root.call("Range", key=b"\0", range_end=b"\0").count, 0)  # nothing was left behind
        key = self.ann.call("Lock", name=b"a/lock", lease=self.lease()).key
        self.assertTrue(key.startswith(b"a/lock/"))
        self.refused(NOBODY, self.nobody, "Unlock", key=key)
        self.allowed(self.ann, "Unlock", key=key)

    def test_who_may_not_write_a_key_does_not_unlock_it(self):
        key = self.root.call("Lock", name=b"b/lock", lease=self.lease()).key
        self.refused(DENIED, self.ann, "Unlock", key=key)
        self.assertEqual(self.root.call("Range", key=key).count, 1)
        self.allowed(self.root, "Unlock", key=key)

    def test_an_election_needs_permission_for_its_keys(self):
        self.refused(DENIED, self.ann, "Campaign", name=b"b/e", lease=self.lease(), value=b"ann")
        self.refused(NOBODY, self.nobody, "Campaign", name=b"a/e", lease=self.lease(), value=b"nobody")
        self.assertEqual(self.root.call("Range", key=b"\0", range_end=b"\0").count, 0)
        leader = self.root.call("Campaign", name=b"b/e", lease=self.lease(), value=b"root").leader
        self.refused(DENIED, self.ann, "Leader", name=b"b/e")
        self.refused(DENIED, self.ann, "Proclaim", leader=leader, value=b"ann")
        self.refused(DENIED, self.ann, "Resign", leader=leader)
        self.refused(NOBODY, self.nobody, "Leader", name=b"b/e")
        self.assertEqual(self.root.call("Leader", name=b"b/e").kv.value, b"root")
        self.allowed(self.root, "Resign", leader=leader)

    def test_an_election_of_ones_own(self):
        leader = self.ann.call("Campaign", name=b"a/e", lease=self.lease(), value=b"one").leader
        self.assertEqual(self.ann.call("Leader", name=b"a/e").kv.value, b"one")
        self.allowed(self.ann, "Proclaim", leader=leader, value=b"two")
        self.assertEqual(next(self.ann.stream("Observe", election_pb2.LeaderRequest(name=b"a/e"))).kv.value, b"two")
        self.allowed(self.ann, "Resign", leader=leader)


class LocksAndElectionsOfUsersOnEtcd(LocksAndElectionsOfUsers):
    kind = "etcd"


class LocksAndElectionsOfOurUsers(ServerTest):
    """What etcd 3.4 is not asked."""

    def test_observers_and_waiters_see_what_they_may(self):
        self.with_users()
        lease = self.root.call("LeaseGrant", TTL=60).ID
        self.root.call("Campaign", name=b"b/e", lease=lease, value=b"secret")
        for caller, text in ((self.ann, DENIED), (self.nobody, NOBODY)):
            with self.assertRaises(grpc.RpcError) as failed:
                next(caller.stream("Observe", election_pb2.LeaderRequest(name=b"b/e")))
            self.assertEqual(failed.exception.details(), text)

    def test_a_candidate_whose_rights_are_taken_hears_no_more(self):
        self.with_users()
        lease = self.root.call("LeaseGrant", TTL=60).ID
        self.root.call("Campaign", name=b"a/e", lease=lease, value=b"one")
        observed = self.ann.stream("Observe", election_pb2.LeaderRequest(name=b"a/e"))
        self.assertEqual(next(observed).kv.value, b"one")
        self.root.call("UserRevokeRole", name="ann", role="some")
        with self.assertRaises(grpc.RpcError):
            for _ in observed:
                pass


class NamesInCertificates(ServerTest):
    """--client-cert-auth with authentication on: who shows no token is who the certificate says."""

    def setUp(self):
        folder = tempfile.mkdtemp(dir=FOLDER)
        self.ca = Authority(folder, "ca")
        self.tls = Tls(self.ca, mutual=True, client="root")
        self.cluster = self.start(tls=self.tls)
        self.as_root = Caller(self.cluster.channels[0])
        set_up_users(self.as_root)
        self.as_ann = self.somebody("ann")

    def somebody(self, name):
        channel = self.cluster.channel(client=self.ca.issue(name))
        self.addCleanup(channel.close)
        return Caller(channel)

    def gateway(self, path, fields, client=None, headers=None):
        return post(self.cluster.clients[0], path, fields, headers, context=self.tls.context(client))

    def test_the_name_is_the_user(self):
        self.allowed(self.as_ann, "Put", key=b"a1", value=b"v")
        self.refused(DENIED, self.as_ann, "Put", key=b"b", value=b"v")
        self.refused(DENIED, self.as_ann, "Range", key=b"a", range_end=b"c")
        self.refused(DENIED, self.as_ann, "UserList")
        self.allowed(self.as_root, "Put", key=b"b", value=b"v")
        self.allowed(self.as_root, "UserList")

    def test_a_name_without_a_user_may_nothing(self):
        mallory = self.somebody("mallory")
        for method, fields in (("Put", {"key": b"a1"}), ("Range", {"key": b"a1"}), ("UserList", {})):
            self.assertNotEqual(mallory.refusal(method, **fields), "", method)

    def test_a_token_counts_before_the_certificate(self):
        ann = self.as_root.log_in("ann", "ann")
        self.refused(DENIED, ann, "Put", key=b"b", value=b"v")
        self.refused(BAD_TOKEN, self.as_root.with_token("nonsense.1"), "Put", key=b"b", value=b"v")

    def test_rights_follow_the_users_roles(self):
        self.as_root.call("UserRevokeRole", name="ann", role="some")
        self.refused(DENIED, self.as_ann, "Range", key=b"a1")
        self.as_root.call("UserDelete", name="ann")
        self.assertNotEqual(self.as_ann.refusal("Range", key=b"a1"), "")

    def test_the_gateway_never_is_who_the_certificate_says(self):
        status, body = self.gateway("/v3/kv/range", {"key": b64("a")})
        self.assertEqual((status, body["message"]), (400, NOBODY))
        status, body = self.gateway("/v3/auth/user/list", {})
        self.assertEqual((status, body["message"]), (400, NOBODY))
        status, body = self.gateway("/v3/auth/authenticate", {"name": "ann", "password": "ann"})
        self.assertEqual(status, 200, body)
        token = {"Authorization": body["token"]}
        self.assertEqual(self.gateway("/v3/kv/range", {"key": b64("a")}, headers=token)[0], 200)
        self.assertEqual(self.gateway("/v3/kv/range", {"key": b64("b")}, headers=token)[0], 403)

    def test_a_stream_too(self):
        watch = rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=b"a"))
        self.assertTrue(next(self.as_ann.stream("Watch", watch)).created)
        watch = rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=b"b"))
        self.assertTrue(next(self.as_ann.stream("Watch", watch)).canceled)


class NamesInCertificatesOnEtcd(NamesInCertificates):
    kind = "etcd"
    test_the_gateway_never_is_who_the_certificate_says = None  # 3.4 has no gateway then


class GatewayOverTls(ServerTest):
    def test_calls_streams_and_pages(self):
        for mutual in (False, True):
            tls = Tls(Authority(tempfile.mkdtemp(dir=FOLDER), "ca"), mutual)
            cluster = self.start(tls=tls)
            server, context = cluster.clients[0], tls.context()
            self.assertEqual(post(server, "/v3/kv/put", {"key": b64("k"), "value": b64("v")}, context=context)[0], 200)
            status, body = post(server, "/v3/kv/range", {"key": b64("k")}, context=context)
            self.assertEqual((status, body["kvs"][0]["value"]), (200, b64("v")))
            with Stream(server, "/v3/watch", {"create_request": {"key": b64("k"), "start_revision": "1"}},
                        context=context) as watch:
                self.assertTrue(watch.next()["result"]["created"])
                self.assertEqual(watch.next()["result"]["events"][0]["kv"]["value"], b64("v"))
                post(server, "/v3/kv/put", {"key": b64("k"), "value": b64("w")}, context=context)
                self.assertEqual(watch.next()["result"]["events"][0]["kv"]["value"], b64("w"))
            for page in ("/version", "/health", "/metrics"):
                self.assertEqual(request(server, "GET", page, context=context)[0], 200, page)
            large = b64(b"x" * 1_000_000)
            self.assertEqual(post(server, "/v3/kv/put", {"key": b64("l"), "value": large}, context=context)[0], 200)
            self.assertEqual(post(server, "/v3/kv/range", {"key": b64("l")}, context=context)[1]["kvs"][0]["value"],
                             large)
            lock = post(server, "/v3/lock/lock", {"name": b64("lock")}, context=context)
            self.assertEqual(lock[0], 200, lock[1])

    def test_with_users(self):
        self.with_users(tls=Tls(Authority(tempfile.mkdtemp(dir=FOLDER), "ca")))
        server, context = self.cluster.clients[0], self.cluster.tls.context()
        status, body = post(server, "/v3/auth/authenticate", {"name": "ann", "password": "ann"}, context=context)
        self.assertEqual(status, 200)
        for header in ({"Authorization": body["token"]}, {"Grpc-Metadata-Token": body["token"]}):
            self.assertEqual(post(server, "/v3/kv/range", {"key": b64("a")}, header, context=context)[0], 200)
            self.assertEqual(post(server, "/v3/kv/range", {"key": b64("b")}, header, context=context)[0], 403)
        self.assertEqual(post(server, "/v3/kv/range", {"key": b64("a")}, context=context)[0], 400)


class GatewayOverTlsOnEtcd(GatewayOverTls):
    kind = "etcd"


class Tokens(ServerTest):
    methods = ["RS256", "ES256", "HS256", "EdDSA"]

    def claims(self, **changed):
        now = jwt.claims_of(dict(self.ann.metadata)["token"])
        return {**now, "exp": int(time.time()) + 300, **changed}

    def as_token(self, token):
        return self.nobody.with_token(token)

    def test_every_method(self):
        for method in self.methods:
            with self.subTest(method):
                key = jwt.Key(tempfile.mkdtemp(dir=FOLDER), method)
                self.with_users(key.flags())
                token = dict(self.ann.metadata)["token"]
                self.assertEqual(claims_keys(token), {"username", "revision", "exp"})
                self.allowed(self.ann, "Put", key=b"a", value=b"v")
                self.refused(DENIED, self.ann, "Put", key=b"b", value=b"v")
                # Whoever has the key can make one too.
                self.allowed(self.as_token(key.sign(self.claims())), "Put", key=b"a", value=b"v")
                self.refused(DENIED, self.as_token(key.sign(self.claims())), "Put", key=b"b", value=b"v")
                self.allowed(self.as_token(key.sign(self.claims(username="root"))), "Put", key=b"b", value=b"v")
                self.bad_tokens(key, method)
                self.old_tokens(key)
                self.cluster.stop()

    def bad_tokens(self, key, method):
        good = key.sign(self.claims())
        head, body, signature = good.split(".")
        as_root = jwt.b64url(str(self.claims(username="root")).replace("'", '"').encode())
        flipped = signature[:10] + ("A" if signature[10] != "A" else "B") + signature[11:]
        other = jwt.Key(tempfile.mkdtemp(dir=FOLDER), method, "other")
        tokens = {
            "expired": key.sign(self.claims(exp=int(time.time()) - 100)),
            "another user's name": f"{head}.{as_root}.{signature}",
            "a changed signature": f"{head}.{body}.{flipped}",
            "no signature": f"{head}.{body}.",
            "two parts": f"{head}.{body}",
            "no method": f'{jwt.b64url(b"""{"alg":"none","typ":"JWT"}""")}.{as_root}.',
            "another key": other.sign(self.claims(username="root")),
            "another method": key.sign(self.claims(), {"alg": "HS512", "typ": "JWT"}),
            "not even base64": "a.b!.c",
            "dots": "..",
        }
        if method[:2] in ("RS", "ES", "Ed"):
            # The public key, which everybody knows, taken for a secret.
            public = jwt.Key(tempfile.mkdtemp(dir=FOLDER), "HS256")
            public.private.write_bytes(key.public.read_bytes())
            tokens["a secret that is none"] = public.sign(self.claims(username="root"))
        for what, token in tokens.items():
            self.refused(BAD_TOKEN, self.as_token(token), "Range", key=b"a")
            self.assertEqual(self.as_token(token).refusal("UserList"), BAD_TOKEN, what)

    def old_tokens(self, key):
        before = key.sign(self.claims())
        self.root.call("UserAdd", name="bob", password="bob")
        self.refused(OLD_TOKEN, self.as_token(before), "Range", key=b"a")
        self.root = self.nobody.log_in("root", "root")


class TokensOnEtcd(Tokens):
    kind = "etcd"
    methods = ["RS256", "ES256", "HS256"]  # 3.4 has no EdDSA


class OurTokens(Tokens):
    """What etcd 3.4 lets pass."""

    def test_every_method(self):
        key = jwt.Key(tempfile.mkdtemp(dir=FOLDER), "ES256")
        self.with_users(key.flags(ttl="2s"))
        claims = self.claims()
        del claims["exp"]
        self.refused(BAD_TOKEN, self.as_token(key.sign(claims)), "Range", key=b"a")
        for changed in ({"username": ""}, {"username": 5}, {"revision": -1}, {"revision": "1"}, {"exp": "soon"},
                        {"exp": 1 << 70}):
            self.assertNotEqual(self.as_token(key.sign(self.claims(**changed))).refusal("Range", key=b"a"), "", changed)
        self.assertNotEqual(self.as_token(key.sign(self.claims(username="x" * 20_000))).refusal("Range", key=b"a"), "")
        # Its time is over while it is in use.
        wait_for(lambda: self.ann.refusal("Range", key=b"a") != "", "the end of a token", PATIENCE_SECONDS)
        self.refused(BAD_TOKEN, self.ann, "Range", key=b"a")
        self.allowed(self.nobody.log_in("ann", "ann"), "Range", key=b"a")

    def test_members_believe_each_others_tokens(self):
        key = jwt.Key(tempfile.mkdtemp(dir=FOLDER), "RS256")
        self.with_users(key.flags(), members=3)
        for channel in self.cluster.channels:
            ann = Caller(channel, self.ann.metadata)
            wait_for(lambda ann=ann: ann.refusal("Put", key=b"a", value=b"v") == "", "a member to know the token",
                     PATIENCE_SECONDS)
            self.refused(DENIED, ann, "Put", key=b"b", value=b"v")

    def test_the_gateway_takes_them(self):
        key = jwt.Key(tempfile.mkdtemp(dir=FOLDER), "EdDSA")
        self.with_users(key.flags())
        server = self.cluster.clients[0]
        for form in ("{}", "Bearer {}", "bearer {}"):
            header = {"Authorization": form.format(dict(self.ann.metadata)["token"])}
            self.assertEqual(post(server, "/v3/kv/range", {"key": b64("a")}, header)[0], 200, form)
            self.assertEqual(post(server, "/v3/kv/range", {"key": b64("b")}, header)[0], 403, form)


def claims_keys(token):
    return set(jwt.claims_of(token))


def main():
    global ARGS, FOLDER, Caller, set_up_users, election_pb2, rpc_pb2
    parser = argparse.ArgumentParser()
    for name in ("--messages", "--conclave", "--etcd"):
        parser.add_argument(name, required=True)
    ARGS, rest = parser.parse_known_args()
    sys.path.insert(0, ARGS.messages)
    from conclave.api import election_pb2, rpc_pb2
    from protocol import Caller, set_up_users
    FOLDER = tempfile.mkdtemp(prefix="conclave-access-")
    try:
        done = unittest.main(argv=["access_test", "-v", *rest], exit=False)
    finally:
        shutil.rmtree(FOLDER)
    return 0 if done.result.wasSuccessful() and done.result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main())
