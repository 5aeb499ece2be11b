"""Random watchers beside random requests. A watcher over everything keeps the log; from it follows what each other
watcher must be told, so that the run knows when all has come and needs no waiting for silence."""

from conclave.api import kv_pb2 as kv

from pair import WatchPair

ALL = b"\0"
END_KEY = b"~end of the run"


def matches(fields, key):
    start, end = fields["key"] or ALL, fields["range_end"]
    if not fields["key"] and not end:
        return key == ALL
    if not end:
        return key == start
    return key >= start and (end == ALL or key < end)


class WatchRun:
    def __init__(self, generator):
        self.generator, self.pair, self.random = generator, generator.pair, generator.random
        self.log = WatchPair(self.pair)
        self.log.create(key=ALL, range_end=ALL)
        self.log.read(lambda said: any(r.created for r in said), "the log's watcher")

    def fields(self):
        g = self.generator
        fields = {"key": g.key(), "range_end": g.end(), "prev_kv": g.chance(40)}
        if g.chance(60):
            start = max(g.past(), 0)
            # Not at the compacted revision itself: if that was a delete, etcd has lost its event (before 3.5.16).
            fields["start_revision"] = start + 1 if start and start == g.compacted else start
        if g.chance(20):
            fields["filters"] = self.random.choice([[0], [1], [0, 1]])
        return fields

    def run(self, count):
        g, watchers = self.generator, []
        stream = WatchPair(self.pair)
        for _ in range(count):
            if g.chance(8):
                fields = self.fields()
                stream.create(**fields)
                watchers.append((fields, g.revision + 1))
                if not stream.read(lambda said: sum(r.created for r in said) >= len(watchers),
                                   f"created {fields}"):
                    break
            method, request = g.request()
            while method == "Compact":  # would race with watchers that catch up
                method, request = g.request()
            g.send(method, request)
            if self.pair.over:
                break
        if self.pair.over:
            stream.close()
        else:
            self.finish(stream, watchers)

    def finish(self, stream, watchers):
        END = END_KEY + str(self.generator.revision).encode()
        self.generator.send("Put", self.generator.plain_put(END))
        # Only the newest is looked at: the condition is asked after each.
        self.log.compare(lambda said: any(e.kv.key == END for e in said[-1].events), "the log")
        events = [e for r in self.log.sides[0].responses for e in r.events]
        expected = self.expected(stream, watchers, events)

        def complete(said):
            heard, canceled = {}, set()
            for response in said:
                heard[response.watch_id] = heard.get(response.watch_id, 0) + len(response.events)
                if response.canceled:
                    canceled.add(response.watch_id)
            return all(i in canceled if wanted is None else heard.get(i, 0) >= wanted
                       for i, wanted in expected.items())

        stream.compare(complete, "all events")
        live = [i for i, wanted in expected.items() if wanted is not None]
        for watch_id in live:
            stream.cancel(watch_id)
        stream.compare(lambda said: {r.watch_id for r in said if r.canceled} >= set(live), "canceled")
        stream.close()

    def expected(self, stream, watchers, events):
        """Watch id -> how many events it must hear; None where it must be canceled for compaction."""
        expected = {}
        created = [r for r in stream.sides[0].responses if r.created]
        for response, (fields, next_revision) in zip(created, watchers):
            if response.canceled:
                continue
            start = fields.get("start_revision", 0) or next_revision
            if start < self.generator.compacted:
                expected[response.watch_id] = None
                continue
            refused = {kv.Event.PUT if f == 0 else kv.Event.DELETE for f in fields.get("filters", [])}
            expected[response.watch_id] = sum(
                1 for e in events
                if e.kv.mod_revision >= start and matches(fields, e.kv.key) and e.type not in refused)
        return expected

    def close(self):
        self.log.close()
