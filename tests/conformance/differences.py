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


DIFFERENCES = [
    Difference(
        "HashKVResponse.hash_revision exists since 3.6",
        lambda method, request, theirs, ours: method == "HashKV" and _only_fields_differ(
            theirs, ours, "hash_revision")),
]


def explain(method, request, theirs, ours):
    """The reason of a known difference, or None."""
    for difference in DIFFERENCES:
        if difference.applies(method, request, theirs, ours):
            return difference.reason
    return None
