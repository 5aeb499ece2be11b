"""Every difference between our answers and those of Debian's etcd 3.4 that is as it should be, with its reason.

A difference that stands here is counted and shown by the runner; any other one fails it.
"""

from conclave.api import rpc_pb2 as rpc


class Difference:
    def __init__(self, reason, applies):
        self.reason, self.applies = reason, applies


def _without(message, *fields):
    copy = type(message)()
    copy.CopyFrom(message)
    for field in fields:
        copy.ClearField(field)
    return copy


def _only_fields_differ(theirs, ours, *fields):
    return theirs.ok and ours.ok and _without(theirs.message, *fields) == _without(ours.message, *fields)


def _ranges(message):
    """All range responses of an answer, those of transactions included."""
    if isinstance(message, rpc.RangeResponse):
        yield message
    elif isinstance(message, rpc.TxnResponse):
        for op in message.responses:
            kind = op.WhichOneof("response")
            if kind in ("response_range", "response_txn"):
                yield from _ranges(getattr(op, kind))


def _only_leases_of_bare_keys_differ(method, request, theirs, ours):
    if method not in ("Range", "Txn") or not (theirs.ok and ours.ok) or "keys_only: true" not in str(request):
        return False
    copy = _without(theirs.message)
    for found in _ranges(copy):
        for kv in found.kvs:
            if not kv.value:
                kv.lease = 0
    mine = _without(ours.message)
    for found in _ranges(mine):
        for kv in found.kvs:
            if not kv.value:
                kv.lease = 0
    return copy == mine


DIFFERENCES = [
    Difference(
        "AlarmResponse has a header since 3.5",
        lambda method, request, theirs, ours: method == "Alarm" and _only_fields_differ(theirs, ours, "header")),
    Difference(
        "peer URLs that are none are refused in MemberUpdate too, where etcd takes whatever comes",
        lambda method, request, theirs, ours: method == "MemberUpdate"
        and ours.text == "etcdserver: given member URLs are invalid"),
    Difference(
        "a campaign for a key that is there already tells the revision of its write, etcd that of its look",
        lambda method, request, theirs, ours: method == "Campaign" and theirs.ok and ours.ok
        and theirs.message.leader == ours.message.leader),
    Difference(
        "HashKVResponse.hash_revision exists since 3.6",
        lambda method, request, theirs, ours: method == "HashKV" and _only_fields_differ(
            theirs, ours, "hash_revision")),
    Difference(
        "HashKV at the compacted revision itself answers since 3.5; 3.4 refuses it",
        lambda method, request, theirs, ours: method == "HashKV" and ours.ok and not theirs.ok
        and ours.message.compact_revision == request.revision
        and theirs.text == "etcdserver: mvcc: required revision has been compacted"),
    Difference(
        "an unknown sort order is refused since 3.5; 3.4 ignores it",
        lambda method, request, theirs, ours: method == "Range" and request.sort_order > 2
        and ours.text == "etcdserver: invalid sort option"),
    Difference(
        "a range of keys only does not tell their leases since 3.7",
        _only_leases_of_bare_keys_differ),
    Difference(
        "etcd 3.4 dies of a put that keeps the value or lease of a key that the same transaction deletes",
        lambda method, request, theirs, ours: method == "Txn" and theirs.code == "UNAVAILABLE"
        and ours.text == "etcdserver: key not found" and "ignore_" in str(request)),
    Difference(
        "sizes are bytes of data here: an empty store has none",
        lambda method, request, theirs, ours: method == "Status" and _only_fields_differ(
            theirs, ours, "dbSize", "dbSizeInUse")),
]


def explain(method, request, theirs, ours):
    """The reason of a known difference, or None."""
    for difference in DIFFERENCES:
        if difference.applies(method, request, theirs, ours):
            return difference.reason
    return None
