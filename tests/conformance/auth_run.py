"""Random users, roles and permissions, and random requests by those users: who may do what is the same with etcd and
with us. The requests stay clear of what etcd 3.4 forgets to check (nested transactions, leases in transactions, the
keys of leases, ranges that are empty, compaction): there we differ on purpose, and tests/node/auth_test.cc holds it."""

import random

from conclave.api import auth_pb2, rpc_pb2 as rpc

from generator import ENDS, KEYS, LEASES

USERS = ["u0", "u1", "u2"]
ROLES = ["r0", "r1", "r2"]
ROOT = "root"
OPEN = b"\0"


class AuthRun:
    def __init__(self, generator):
        self.generator, self.pair = generator, generator.pair
        self.random = random.Random(generator.random.randrange(1 << 32))
        self.tokens = {}
        self.granted = []

    def set_up(self):
        for user in [ROOT, *USERS]:
            self.pair.call("UserAdd", name=user, password=user)
        for role in ROLES:
            self.pair.call("RoleAdd", name=role)
        self.pair.call("UserGrantRole", user=ROOT, role=ROOT)
        self.pair.call("AuthEnable")
        for user in [ROOT, *USERS]:
            self.log_in(user)
        self.act_as(ROOT)
        for lease in LEASES:
            self.pair.call("LeaseGrant", ID=lease, TTL=1000)
        for _ in range(8):
            self.change()

    def log_in(self, user):
        self.act_as(None)
        self.tokens[user] = [stub(rpc.AuthenticateRequest(name=user, password=user).SerializeToString(), timeout=20)
                             for stub in self.pair.stubs["Authenticate"]]
        self.tokens[user] = [rpc.AuthenticateResponse.FromString(raw).token for raw in self.tokens[user]]

    def act_as(self, user):
        self.pair.metadata = [None, None] if user is None else [(("token", token),) for token in self.tokens[user]]

    def interval(self):
        key, end = self.random.choice(KEYS), b"" if self.random.randrange(2) else self.random.choice(ENDS)
        return (key, end) if end in (b"", OPEN) or end > key else (key, b"")

    def may_be_kept_twice(self, role, key, end):
        """3.4 finds the grant that a new one replaces only if the role has no other one from the same key on. Else it
        keeps both, and goes on allowing what the old one did."""
        same = [granted[2] for granted in self.granted if granted[:2] == (role, key)]
        return end in same and any(other != end for other in same)

    def change(self):
        """Root changes something about users and roles."""
        self.act_as(ROOT)
        kind = self.random.randrange(10)
        role, user = self.random.choice([*ROLES, "nosuch"]), self.random.choice([*USERS, "nosuch"])
        if kind < 4:
            key, end = self.interval()
            if self.may_be_kept_twice(role, key, end):
                return
            self.granted.append((role, key, end))
            self.pair.call("RoleGrantPermission", name=role, perm=auth_pb2.Permission(
                permType=self.random.randrange(3), key=key, range_end=end))
        elif kind < 6 and self.granted:
            role, key, end = self.granted.pop(self.random.randrange(len(self.granted)))
            self.pair.call("RoleRevokePermission", role=role, key=key, range_end=end)
        elif kind < 8:
            self.pair.call("UserGrantRole", user=user, role=role)
        elif kind == 8:
            self.pair.call("UserRevokeRole", name=user, role=role)
        else:
            self.pair.call("RoleGet", role=self.random.choice(ROLES))
            self.pair.call("UserGet", name=user)

    def request(self):
        kind = self.random.randrange(100)
        g = self.generator
        if kind < 30:
            return "Put", g.put()
        if kind < 60:
            return "Range", g.range()
        if kind < 75:
            return "DeleteRange", g.delete()
        if kind < 92:
            return "Txn", g.txn()
        if kind < 94:
            return "LeaseRevoke", rpc.LeaseRevokeRequest(ID=self.random.choice(LEASES))
        if kind < 96:
            return "LeaseGrant", rpc.LeaseGrantRequest(ID=self.random.choice(LEASES), TTL=1000)
        return self.random.choice([
            ("UserGet", rpc.AuthUserGetRequest(name=self.random.choice([*USERS, ROOT, "nosuch"]))),
            ("RoleGet", rpc.AuthRoleGetRequest(role=self.random.choice([*ROLES, "nosuch"]))),
            ("UserList", rpc.AuthUserListRequest()), ("RoleList", rpc.AuthRoleListRequest()),
            ("UserGrantRole", rpc.AuthUserGrantRoleRequest(user="u0", role=ROOT)),
        ])

    def comparable(self, user, method, request):
        """False for what etcd 3.4 does not check, or not so."""
        def plain(key, end):
            return end in (b"", OPEN) or end > key

        if method.startswith("Lease"):
            return user is not None
        if method in ("Range", "DeleteRange"):
            return plain(request.key, request.range_end)
        if method == "Txn":
            if user is None and not (request.compare or request.success or request.failure):
                return False  # nothing is touched: etcd asks nobody's name
            for op in [*request.success, *request.failure]:
                name = op.WhichOneof("request")
                inner = getattr(op, name) if name else None
                # In transactions 3.4 does not ask for the right to read what a put gives back.
                if name == "request_txn" or (name == "request_put" and (inner.lease or inner.prev_kv)):
                    return False
                if name in ("request_range", "request_delete_range") and not plain(inner.key, inner.range_end):
                    return False
            return all(plain(c.key, c.range_end) for c in request.compare)
        return True

    def watch(self, user):
        """Whether a watch is allowed, and why not."""
        key, end = self.interval()
        if end == OPEN and user != ROOT:
            return  # 3.4 asks for the first key's permission only, and shows all behind it
        self.act_as(user)
        watch = self.pair.watch()
        watch.create(key=key, range_end=end)
        if watch.read(lambda responses: responses, f"create {key} {end} by {user}"):
            said = [(r.created, r.canceled, r.cancel_reason) for r in (s.responses[0] for s in watch.sides)]
            if said[0] != said[1]:
                self.pair.differ(f"watch {key} {end} by {user}", *said)
        watch.close()

    def run(self, count):
        for number in range(count):
            if self.pair.over:
                return
            if number % 20 == 0:
                self.change()
            user = self.random.choice([*USERS, *USERS, *USERS, ROOT, None])
            if number % 10 == 5:
                self.watch(user or ROOT)
                continue
            method, request = self.request()
            if user == ROOT and method == "UserGrantRole":
                continue  # u0 stays what he is
            if self.comparable(user, method, request):
                self.act_as(user)
                self.generator.send(method, request)

    def tear_down(self):
        self.act_as(ROOT)
        self.pair.call("AuthDisable")
        self.act_as(None)
        for user in [ROOT, *USERS]:
            self.pair.call("UserDelete", name=user)
        for role in ROLES:
            self.pair.call("RoleDelete", role=role)
