"""Seeded random requests over all services but the recipes', by gRPC and through the gateway, made to meet each other: few keys, few leases, revisions
round the current and the compacted one, options in all combinations, and some nonsense."""

import random

from conclave.api import rpc_pb2 as rpc

from pair import GATEWAY_PATHS

GATEWAY_PERCENT = 12
KEYS = [b"a", b"b", b"c", b"c/1", b"c/2", b"c/22", b"d", b"\xff", b"\xff\xff", b"z"]
ENDS = [b"", b"\0", b"b", b"c/", b"c0", b"d", b"e", b"zz", b"\xff\xff", b"a"]
LEASES = [11, 12, 13, 14]
UNKNOWN_LEASE = 999


class Generator:
    def __init__(self, pair, seed):
        self.pair = pair
        self.random = random.Random(seed)
        self.revision = 1
        self.compacted = 0

    # -- pieces

    def chance(self, percent):
        return self.random.randrange(100) < percent

    def key(self):
        return b"" if self.chance(1) else self.random.choice(KEYS)

    def end(self):
        return b"" if self.chance(50) else self.random.choice(ENDS)

    def value(self):
        return bytes(self.random.choices(b"xyz\0\xff", k=self.random.choice([0, 1, 2, 20])))

    def past(self):
        """A revision: mostly one that can be read, sometimes compacted, in the future, or negative."""
        kind = self.random.randrange(20)
        if kind == 0:
            return self.revision + self.random.randrange(1, 4)
        if kind == 1:
            return self.random.randrange(-3, 2)
        if kind == 2:
            return self.compacted
        return self.random.randint(max(1, self.compacted - 2), max(1, self.revision))

    def bound(self):
        return self.random.randint(0, self.revision + 2) if self.chance(15) else 0

    def range(self):
        r = rpc.RangeRequest(key=self.key(), range_end=self.end())
        if self.chance(30):
            r.limit = self.random.choice([1, 2, 3, 5, 100, -1])
        if self.chance(30):
            r.revision = self.past()
        if self.chance(30):
            r.sort_order = self.random.choice([0, 1, 2])
            r.sort_target = self.random.choice([0, 1, 2, 3, 4])
        r.serializable = self.chance(20)
        r.keys_only = self.chance(10)
        r.count_only = self.chance(10)
        r.min_mod_revision, r.max_mod_revision = self.bound(), self.bound()
        r.min_create_revision, r.max_create_revision = self.bound(), self.bound()
        return r

    def put(self):
        p = rpc.PutRequest(key=self.key(), prev_kv=self.chance(30))
        p.ignore_value, p.ignore_lease = self.chance(8), self.chance(8)
        if not p.ignore_value or self.chance(10):
            p.value = self.value()
        if self.chance(25) and (not p.ignore_lease or self.chance(10)):
            p.lease = self.random.choice([*LEASES, UNKNOWN_LEASE] if self.chance(20) else LEASES)
        return p

    def delete(self):
        return rpc.DeleteRangeRequest(key=self.key(), range_end=self.end(), prev_kv=self.chance(30))

    def compare(self):
        c = rpc.Compare(result=self.random.randrange(4), key=self.key())
        if self.chance(20):
            c.range_end = self.end()
        target = self.random.randrange(5)
        c.target = target
        near = self.random.choice([0, 1, 2, self.revision, self.random.randint(0, self.revision)])
        if target == rpc.Compare.VERSION:
            c.version = self.random.choice([0, 1, 2, 3])
        elif target == rpc.Compare.CREATE:
            c.create_revision = near
        elif target == rpc.Compare.MOD:
            c.mod_revision = near
        elif target == rpc.Compare.VALUE:
            c.value = self.value()
        else:
            c.lease = self.random.choice([0, *LEASES])
        return c

    def op(self, depth):
        op = rpc.RequestOp()
        kind = self.random.randrange(100)
        if kind < 35:
            op.request_put.CopyFrom(self.put())
        elif kind < 65:
            op.request_range.CopyFrom(self.range())
        elif kind < 85:
            op.request_delete_range.CopyFrom(self.delete())
        elif kind < 98 and depth < 3:
            op.request_txn.CopyFrom(self.txn(depth + 1))
        elif kind == 99 and self.chance(20):
            pass  # an operation without a request
        else:
            op.request_range.CopyFrom(self.range())
        return op

    def txn(self, depth=0):
        few = [0, 0, 1, 1, 2, 3] if depth == 0 else [0, 1, 1, 2]
        t = rpc.TxnRequest()
        t.compare.extend(self.compare() for _ in range(self.random.choice(few)))
        t.success.extend(self.op(depth) for _ in range(self.random.choice(few)))
        t.failure.extend(self.op(depth) for _ in range(self.random.choice(few)))
        return t

    def lease(self):
        kind = self.random.randrange(10)
        lease = self.random.choice([*LEASES, UNKNOWN_LEASE])
        if kind < 4:
            return "LeaseGrant", rpc.LeaseGrantRequest(
                ID=self.random.choice([*LEASES, *LEASES, 0]),
                TTL=self.random.choice([600, 700, 1000, 9_000_000_000, 9_000_000_001]))
        if kind < 6:
            return "LeaseRevoke", rpc.LeaseRevokeRequest(ID=lease)
        if kind < 7:
            return "LeaseKeepAlive", rpc.LeaseKeepAliveRequest(ID=lease)
        if kind < 9:
            return "LeaseTimeToLive", rpc.LeaseTimeToLiveRequest(ID=lease, keys=self.chance(70))
        return "LeaseLeases", rpc.LeaseLeasesRequest()

    def look(self):
        """What concerns members and maintenance, and changes nothing: lists, and changes that are refused."""
        member = self.random.choice([1, 12345, (1 << 64) - 1])
        urls = self.random.choice([[], ["nonsense"], ["http://127.0.0.1"], ["ftp://127.0.0.1:1"], ["http://127.0.0.1:1/x"]])
        return self.random.choice([
            ("MemberList", rpc.MemberListRequest()), ("Status", rpc.StatusRequest()), ("Alarm", rpc.AlarmRequest()),
            ("Hash", rpc.HashRequest()), ("Defragment", rpc.DefragmentRequest()),
            ("MoveLeader", rpc.MoveLeaderRequest(targetID=member)),
            ("MemberAdd", rpc.MemberAddRequest(peerURLs=urls, isLearner=self.chance(50))),
            ("MemberUpdate", rpc.MemberUpdateRequest(ID=member, peerURLs=urls)),
            ("MemberRemove", rpc.MemberRemoveRequest(ID=member)),
            ("MemberPromote", rpc.MemberPromoteRequest(ID=member)),
            ("AuthDisable", rpc.AuthDisableRequest()), ("AuthEnable", rpc.AuthEnableRequest()),
            ("Authenticate", rpc.AuthenticateRequest(name="u0", password="x")),
            ("UserList", rpc.AuthUserListRequest()), ("RoleList", rpc.AuthRoleListRequest()),
        ])

    def request(self):
        kind = self.random.randrange(1000)
        if kind < 330:
            return "Put", self.put()
        if kind < 580:
            return "Range", self.range()
        if kind < 680:
            return "DeleteRange", self.delete()
        if kind < 890:
            return "Txn", self.txn()
        if kind < 975:
            return self.lease()
        if kind < 979:
            return self.look()
        if kind < 987:
            return "HashKV", rpc.HashKVRequest(revision=self.past() if self.chance(50) else 0)
        return "Compact", rpc.CompactionRequest(
            revision=self.past() if self.chance(30) else self.random.randint(
                self.compacted, max(self.compacted, self.revision)),
            physical=True)

    # -- runs

    def run(self, count):
        """Sends `count` requests; stops early once the two have gone apart."""
        for _ in range(count):
            self.send(*self.request())
            if self.pair.over:
                return  # the two have gone apart, or one has gone

    def send(self, method, request):
        if method == "LeaseKeepAlive":
            theirs, _ = self.pair.keep_alive(request.ID)
        elif method in GATEWAY_PATHS and self.chance(GATEWAY_PERCENT):
            theirs, _ = self.pair.send_json(method, request, self.random.randrange(4))
        else:
            theirs, _ = self.pair.send(method, request)
        if theirs.ok and "header" in theirs.message.DESCRIPTOR.fields_by_name:
            self.revision = max(self.revision, theirs.message.header.revision)
            if method == "Compact":
                self.compacted = max(self.compacted, request.revision)
        return theirs

    def plain_put(self, key):
        return rpc.PutRequest(key=key, value=b"1")
