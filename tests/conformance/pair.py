"""The same request to etcd and to us, by gRPC or through the JSON gateway, and the comparison of the two answers."""

import collections
import http.client
import json
import queue
import threading

import grpc
from google.protobuf import json_format

from conclave.api import rpc_pb2 as rpc

from differences import explain
from protocol import METHODS

CALL_SECONDS_MAX = 20
WATCH_SECONDS_MAX = 20
CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
# The gateway's paths, without /v3/.
GATEWAY_PATHS = {
    "Range": "kv/range", "Put": "kv/put", "DeleteRange": "kv/deleterange", "Txn": "kv/txn", "Compact": "kv/compaction",
    "LeaseGrant": "lease/grant", "LeaseRevoke": "lease/revoke", "LeaseTimeToLive": "lease/timetolive",
    "LeaseLeases": "lease/leases", "MemberList": "cluster/member/list",
    "UserGet": "auth/user/get", "UserList": "auth/user/list", "RoleGet": "auth/role/get", "RoleList": "auth/role/list",
    "Lock": "lock/lock", "Unlock": "lock/unlock", "Campaign": "election/campaign", "Proclaim": "election/proclaim",
    "Leader": "election/leader", "Resign": "election/resign",
}

class Answer:
    """A response with its ids blanked out, or an error."""

    def __init__(self, message=None, code=None, text=None):
        self.message, self.code, self.text = message, code, text

    @property
    def ok(self):
        return self.code is None

    def __eq__(self, other):
        return (self.message, self.code, self.text) == (other.message, other.code, other.text)

    def __str__(self):
        if self.ok:
            return f"{type(self.message).__name__} {{{' '.join(str(self.message).split())}}}"
        return f"{self.code}: {self.text}"


def blank_header(message):
    """Cluster, member and term differ between two clusters by their nature."""
    if "header" in message.DESCRIPTOR.fields_by_name and message.HasField("header"):
        message.header.cluster_id = message.header.member_id = message.header.raft_term = 0


def normalize(method, request, message):
    blank_header(message)
    if method == "LeaseGrant" and request.ID == 0 and message.ID > 0:
        message.ID = 1  # chosen by the server
    if method == "LeaseTimeToLive" and message.TTL > 0:
        message.TTL = message.grantedTTL  # counts down
        message.keys.sort()  # etcd keeps them in a hash map
    if method == "LeaseLeases":
        # Ordered by expiry, which is the order of the clocks; large ids are the server's choice.
        ids = sorted(min(status.ID, 1 << 32) for status in message.leases)
        del message.leases[:]
        message.leases.extend(rpc.LeaseStatus(ID=i) for i in ids)
    if method == "Hash":
        message.hash = 0  # of the file's bytes
    if method == "MemberList":
        for member in message.members:
            member.ID = 0
            del member.peerURLs[:], member.clientURLs[:]
    if method == "Status":
        # Sizes, indexes and versions are each server's own; that they are there is what can be compared.
        for field in ("leader", "raftIndex", "raftTerm", "raftAppliedIndex", "dbSize", "dbSizeInUse"):
            setattr(message, field, min(getattr(message, field), 1))
        for field in ("version", "storageVersion", "dbSizeQuota", "downgradeInfo"):
            message.ClearField(field)
    return message


class WatchPair:
    """One watch stream to each server; everything it says is kept."""

    def __init__(self, pair):
        self.pair = pair
        self.sides = [WatchSide(server, metadata) for server, metadata in zip(pair.servers, pair.metadata)]

    def send(self, request):
        for side in self.sides:
            side.requests.put(request)

    def create(self, **fields):
        self._count()
        self.send(rpc.WatchRequest(create_request=rpc.WatchCreateRequest(**fields)))

    def cancel(self, watch_id):
        self._count()
        self.send(rpc.WatchRequest(cancel_request=rpc.WatchCancelRequest(watch_id=watch_id)))

    def _count(self):
        self.pair.requests += 1
        self.pair.sent["Watch"] += 1

    def progress(self):
        self._count()
        self.send(rpc.WatchRequest(progress_request=rpc.WatchProgressRequest()))

    def read(self, done, what):
        """Reads both sides until done(responses) holds for each."""
        for side, server in zip(self.sides, self.pair.servers):
            if not side.read_until(done):
                self.pair.differ(f"watch: {what}", f"({server.name} never sent it)",
                                 "last: " + " | ".join(" ".join(str(r).split())
                                                       for r in side.responses[-3:]))
                return False
        return True

    def compare(self, done, what):
        """Reads both sides until done(responses) holds for each; then all they have said must agree."""
        if not self.read(done, what):
            return
        theirs, ours = (flatten(side.responses) for side in self.sides)
        if theirs != ours:
            reason = explain("Watch", what, theirs, ours)
            if reason:
                self.pair.explained[reason] = self.pair.explained.get(reason, 0) + 1
            else:
                self.pair.differ(f"watch: {what}", *describe(theirs, ours))

    def close(self):
        for side in self.sides:
            side.close()


def flatten(responses):
    """Per watcher: its control messages and its events in order, however they were batched; an event carries the
    number of its revision's events in the same response, so that a torn revision shows."""
    by_watch = {}
    for response in responses:
        told = by_watch.setdefault(response.watch_id, [])
        if response.created or response.canceled or not response.events:
            told.append(("control", response.created, response.canceled, response.compact_revision,
                         response.cancel_reason))
        together = collections.Counter(event.kv.mod_revision for event in response.events)
        for event in response.events:
            told.append(("event", together[event.kv.mod_revision], event.SerializeToString(deterministic=True)))
    return by_watch


def describe(theirs, ours):
    """The first item on which the two disagree, of each."""
    for watch_id in sorted(set(theirs) | set(ours)):
        a, b = theirs.get(watch_id, []), ours.get(watch_id, [])
        for i in range(max(len(a), len(b))):
            if i >= len(a) or i >= len(b) or a[i] != b[i]:
                return (f"watcher {watch_id}, item {i}: {a[i] if i < len(a) else None}",
                        f"{b[i] if i < len(b) else None}")
    return "", ""


class WatchSide:
    def __init__(self, server, metadata):
        self.requests = queue.Queue()
        self.responses = []
        self.incoming = queue.Queue()
        self.call = server.channels[0].stream_stream("/etcdserverpb.Watch/Watch")(
            iter(self._next, None), metadata=metadata)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _next(self):
        request = self.requests.get()
        return None if request is None else request.SerializeToString()

    def _read(self):
        try:
            for raw in self.call:
                self.incoming.put(rpc.WatchResponse.FromString(raw))
        except grpc.RpcError:
            pass
        self.incoming.put(None)

    def read_until(self, done):
        while not done(self.responses):
            try:
                response = self.incoming.get(timeout=WATCH_SECONDS_MAX)
            except queue.Empty:
                return False
            if response is None:
                return False
            self.responses.append(response)
        return True

    def close(self):
        self.requests.put(None)
        self.call.cancel()
        self.thread.join()


class Pair:
    """etcd first, then we. Counts requests, and keeps the differences that nothing explains."""

    def __init__(self, theirs, ours, context):
        self.servers = [theirs, ours]
        self.context = context
        self.requests = 0
        self.explained = {}
        self.unexplained = []
        self.oracle_died = False  # of a request that we have answered; then there is nothing more to compare
        self.metadata = [None, None]  # that calls and streams carry, per server
        self.sent = collections.Counter()  # per method, with " by gateway" where it went there
        self.stubs = {m.name: [s.unary(m.path) for s in self.servers] for m in METHODS.values()}
        self.doors = [http.client.HTTPConnection(s.clients[0], timeout=CALL_SECONDS_MAX) for s in self.servers]

    def watch(self):
        return WatchPair(self)

    def differ(self, what, theirs, ours):
        self.unexplained.append(f"[{self.context}] {what}\n    etcd: {theirs}\n    we:   {ours}")

    def call(self, method, **fields):
        return self.send(method, METHODS[method].request(**fields))

    def send(self, method, request):
        """Sends to both, compares, and returns both answers."""
        raw = request.SerializeToString()
        return self._compare(method, method, request, [
            self._answer(method, request, lambda: stub(raw, timeout=CALL_SECONDS_MAX, metadata=metadata))
            for stub, metadata in zip(self.stubs[method], self.metadata)])

    def keep_alive(self, lease):
        """One request and one response of the stream."""
        request = rpc.LeaseKeepAliveRequest(ID=lease)

        def ask(server, metadata):
            stream = server.channels[0].stream_stream(METHODS["LeaseKeepAlive"].path)(
                iter([request.SerializeToString()]), timeout=CALL_SECONDS_MAX, metadata=metadata)
            try:
                return next(stream)
            finally:
                stream.cancel()
        return self._compare("LeaseKeepAlive", "LeaseKeepAlive", request, [
            self._answer("LeaseKeepAlive", request, lambda: ask(server, metadata))
            for server, metadata in zip(self.servers, self.metadata)])

    def send_json(self, method, request, form):
        """As send(), through the gateway. `form` says how the fields are written."""
        body = json_format.MessageToJson(request, preserving_proto_field_name=bool(form & 1),
                                         use_integers_for_enums=bool(form & 2), indent=None)
        return self._compare(method, f"{method} by gateway", request, [
            self._json_answer(method, request, body, door, metadata)
            for door, metadata in zip(self.doors, self.metadata)])

    def _compare(self, method, label, request, answers):
        theirs, ours = answers
        self.requests += 1
        self.sent[label] += 1
        if theirs.code == "UNAVAILABLE" and ours.code != "UNAVAILABLE" and self.servers[0].has_died():
            self.oracle_died = True
        unanswered = "DEADLINE_EXCEEDED" in (theirs.code, ours.code)  # nothing here may wait
        if theirs != ours or unanswered:
            reason = None if unanswered else explain(method, request, theirs, ours)
            if reason:
                self.explained[reason] = self.explained.get(reason, 0) + 1
            else:
                self.differ(f"{label} {{{' '.join(str(request).split())}}}", theirs, ours)
        return theirs, ours

    def _answer(self, method, request, ask):
        try:
            message = METHODS[method].response.FromString(ask())
        except grpc.RpcError as error:
            return Answer(code=error.code().name, text=error.details())
        return Answer(normalize(method, request, message))

    def _json_answer(self, method, request, body, door, metadata):
        headers = {"Authorization": dict(metadata)["token"]} if metadata else {}
        try:
            door.request("POST", f"/v3/{GATEWAY_PATHS[method]}", body, headers)
            response = door.getresponse()
            said = json.loads(response.read())
        except (OSError, http.client.HTTPException) as error:
            door.close()
            return Answer(code="UNAVAILABLE", text=str(error))
        if response.status != 200:
            return Answer(code=CODE_NAMES[said["code"]], text=said["message"])
        return Answer(normalize(method, request, json_format.ParseDict(
            said, METHODS[method].response(), ignore_unknown_fields=True)))

    @property
    def over(self):
        return self.oracle_died or bool(self.unexplained)

    def revisions(self):
        """The current revision of both."""
        found = []
        for stub in self.stubs["Range"]:
            raw = stub(rpc.RangeRequest(key=b"\0", count_only=True).SerializeToString(),
                       timeout=CALL_SECONDS_MAX)
            found.append(rpc.RangeResponse.FromString(raw).header.revision)
        return found
