"""Random locks and elections served by the server itself. Nobody waits: a name is only asked for by the lease that holds
it, or when it is free; who waits, and for how long, tests/integration/gateway_test.py holds."""

import random

from conclave.api import election_pb2 as election

from protocol import METHODS

LEASES = [301, 302, 303]
UNKNOWN_LEASE = 399
# None is another one's beginning: a name's keys stand behind it and a slash.
LOCKS = [b"lock", b"lock2/", b"\xff"]
ELECTIONS = [b"e", b"e2/e", b"\xfe"]


class RecipesRun:
    def __init__(self, generator):
        self.generator, self.pair = generator, generator.pair
        self.random = random.Random(generator.random.randrange(1 << 32))
        self.holders = {}  # name -> lease
        self.leaders = {}  # name -> the last LeaderKey of each server, alike in both

    def send(self, method, **fields):
        return self.generator.send(method, METHODS[method].request(**fields))

    def end_lease(self, lease):
        self.send("LeaseRevoke", ID=lease)
        self.holders = {name: holder for name, holder in self.holders.items() if holder != lease}

    def take(self, method, name, **fields):
        lease = self.holders.get(name) or self.random.choice([*LEASES, *LEASES, UNKNOWN_LEASE])
        answer = self.send(method, name=name, lease=lease, **fields)
        if answer.ok:
            self.holders[name] = lease
        return answer

    def leader_key(self, name):
        """The right one, or one that is wrong somewhere."""
        key = election.LeaderKey(name=name, key=name + b"/12d", rev=2, lease=LEASES[0])
        if name in self.leaders:
            key.CopyFrom(self.leaders[name])
        if self.random.randrange(5) == 0:
            key.rev += self.random.choice([-1, 1])
        if self.random.randrange(8) == 0:
            key.key = self.random.choice([b"", b"elsewhere"])
        return key

    def step(self):
        kind, lock, name = self.random.randrange(100), self.random.choice(LOCKS), self.random.choice(ELECTIONS)
        if kind < 20:
            self.take("Lock", lock)
        elif kind < 35:
            holder = self.holders.pop(lock, None)
            self.send("Unlock", key=b"%s/%x" % (lock, holder) if holder else self.random.choice([b"", b"lock/1", b"x"]))
        elif kind < 50:
            answer = self.take("Campaign", name, value=b"value %d" % self.random.randrange(3))
            if answer.ok:
                self.leaders[name] = answer.message.leader
        elif kind < 62:
            leader = {} if self.random.randrange(10) == 0 else {"leader": self.leader_key(name)}
            self.send("Proclaim", value=b"said %d" % self.random.randrange(3), **leader)
        elif kind < 72:
            leader = {} if self.random.randrange(10) == 0 else {"leader": self.leader_key(name)}
            self.send("Resign", **leader)
            if self.pair.call("Leader", name=name)[0].code is not None:
                self.holders.pop(name, None)
        elif kind < 82:
            self.send("Leader", name=self.random.choice([name, b"nobody"]))
        elif kind < 90:
            self.end_lease(self.random.choice(LEASES))
        elif kind < 97:
            self.send("LeaseGrant", ID=self.random.choice(LEASES), TTL=1000)
        else:
            self.send("Range", key=b"\0", range_end=b"\0", keys_only=True)

    def run(self, count):
        for lease in LEASES:
            self.send("LeaseGrant", ID=lease, TTL=1000)
        for _ in range(count):
            if self.pair.over:
                return
            self.step()
        for lease in LEASES:
            self.end_lease(lease)
        self.send("DeleteRange", key=b"e", range_end=b"m")
