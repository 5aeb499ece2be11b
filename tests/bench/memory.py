"""What etcd and conclave hold in memory: with nothing in them, with idle connections, with watches, and with keys.

Each row starts both servers, one after the other, on an empty data directory, brings in what the row names, and waits
until the resident memory (VmRSS of /proc/PID/status) has settled: Go's collector gives memory back for a while. What a
thing costs is the row less the row with nothing, divided by their number. Needs no idle machine.

usage: memory.py --etcd PATH --conclave PATH [--connections N --watches N --streams N --keys N --only PART]
"""

import argparse
import asyncio
import contextlib
import pathlib
import resource
import subprocess
import sys
import time

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
import raw_http2 as h2  # noqa: E402
from servers import Cluster, memory_folder  # noqa: E402

SETTLE_SECONDS = 4  # without a change, and at most ten times as long
SETTLED_SHARE = 0.01
KEY_BYTES, VALUE_BYTES = 32, 100
PUTS_PER_TXN = 100
TXNS_AT_A_TIME = 16
CONNECTIONS_AT_A_TIME = 250
CHANNELS = 10  # for streams and transactions
DESCRIPTORS_SPARE = 1000
FLAGS = ["--quota-backend-bytes", str(8 << 30)]


def resident(process):
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("memory: /proc names no VmRSS")


def settled(process):
    """The resident memory once it has stayed the same for a while."""
    first = since = time.monotonic()
    held = resident(process)
    while time.monotonic() - since < SETTLE_SECONDS and time.monotonic() - first < 10 * SETTLE_SECONDS:
        time.sleep(0.25)  # between two looks at another process
        now = resident(process)
        if abs(now - held) > SETTLED_SHARE * held:
            held, since = now, time.monotonic()
    return resident(process)


# ---- What the rows bring in, and leave in place. They do so in a process of their own, which is killed when the memory
# has been measured: gRPC for Python may never come to an end of a thousand streams.


@contextlib.asynccontextmanager
async def nothing(_address, _args):
    yield


@contextlib.asynccontextmanager
async def connections(address, args):
    """Clients that have done what HTTP/2 begins with, and say nothing more."""
    with contextlib.ExitStack() as stack:
        for begin in range(0, args.connections, CONNECTIONS_AT_A_TIME):
            count = min(CONNECTIONS_AT_A_TIME, args.connections - begin)
            peers = [stack.enter_context(h2.Connection(address)) for _ in range(count)]
            for peer in peers:
                while (frame := peer.next_frame()) is not None and (frame[0] != h2.SETTINGS or frame[1] & h2.ACK):
                    pass
                if frame is None:
                    raise SystemExit("memory: the server has closed an idle connection")
                peer.send(h2.frame(h2.SETTINGS, h2.ACK))
        yield


def field(number, text):
    """A field of bytes, below 16 KB."""
    length = bytes([len(text)]) if len(text) < 128 else bytes([len(text) & 127 | 128, len(text) >> 7])
    return bytes([number << 3 | 2]) + length + text


def key(number):
    return b"bench/memory/%0*d" % (KEY_BYTES - 13, number)


def channels(stack, address):
    options = [("grpc.use_local_subchannel_pool", 1)]
    return [stack.enter_async_context(grpc.aio.insecure_channel(address, options=options)) for _ in range(CHANNELS)]


async def watch_stream(channel, keys):
    call = channel.stream_stream("/etcdserverpb.Watch/Watch")()
    for watched in keys:
        await call.write(field(1, field(1, watched)))  # create_request with a key
    for _ in keys:
        if b"\x18\x01" not in await call.read():  # created
            raise SystemExit("memory: a watch was refused")
    return call


@contextlib.asynccontextmanager
async def watches(address, args, distinct=None):
    """Watches of single keys, `distinct` different ones (all of them without it), evenly on the streams."""
    distinct = distinct or args.watches
    each = args.watches // args.streams
    async with contextlib.AsyncExitStack() as stack:
        over = await asyncio.gather(*channels(stack, address))
        calls = []
        for begin in range(0, args.streams, TXNS_AT_A_TIME):
            calls += await asyncio.gather(*[
                watch_stream(over[s % CHANNELS], [key((s * each + i) % distinct) for i in range(each)])
                for s in range(begin, min(begin + TXNS_AT_A_TIME, args.streams))])
        yield calls


def shared_watches(address, args):
    return watches(address, args, max(args.watches // 1000, 1))


@contextlib.asynccontextmanager
async def keys(address, args):
    """Keys that were put once each, in the order of a counter that is spread over all of them."""
    value = bytes(VALUE_BYTES)
    left = iter(range(0, args.keys, PUTS_PER_TXN))

    async def put(channel):
        txn = channel.unary_unary("/etcdserverpb.KV/Txn")
        for begin in left:
            puts = range(begin, min(begin + PUTS_PER_TXN, args.keys))
            # TxnRequest.success of RequestOp.request_put
            await txn(b"".join(field(2, field(2, field(1, key(scatter(n, args.keys))) + field(2, value))) for n in puts))
    async with contextlib.AsyncExitStack() as stack:
        over = await asyncio.gather(*channels(stack, address))
        await asyncio.gather(*[put(over[i % CHANNELS]) for i in range(TXNS_AT_A_TIME)])
        yield


def scatter(number, count):
    return number * 2654435761 % count  # a prime that shares no factor with the counts that are used here


PARTS = {"nothing": nothing, "connections": connections, "watches": watches, "shared-watches": shared_watches,
         "keys": keys}
IN_PLACE = b"in place\n"


async def bring(part, address, args):
    async with PARTS[part](address, args):
        sys.stdout.buffer.write(IN_PLACE)
        sys.stdout.flush()
        await asyncio.Event().wait()


def measure(name, binary, part):
    cluster = Cluster(name, binary, flags=FLAGS, folder=memory_folder())
    try:
        bringer = subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--bring", part, "--address",
                                    cluster.clients[0]], stdout=subprocess.PIPE)
        try:
            if bringer.stdout.readline() != IN_PLACE:
                raise SystemExit(f"memory: {part} could not be brought into {name}")
            return settled(cluster.processes[0])
        finally:
            bringer.kill()
            bringer.wait()
    finally:
        cluster.stop()


def megabytes(size):
    return f"{size / (1 << 20):.1f}"


def show(rows, names):
    lines = [["figure", *(f"{name} MB" for name in names), "ratio", *(f"{name}, each" for name in names)]]
    base = {name: rows[0][2][name] for name in names}
    for label, count, sizes in rows:
        each = [f"{(sizes[name] - base[name]) / count:,.0f} B" if count else "-" for name in names]
        lines.append([label, *(megabytes(sizes[name]) for name in names),
                      f"{sizes['conclave'] / sizes['etcd']:.2f}", *each])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for index, line in enumerate(lines):
        print("| " + " | ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                                for i, (cell, width) in enumerate(zip(line, widths))) + " |")
        if index == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def allow_descriptors(count):
    """For this process and the servers that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(hard, count)))
    except (ValueError, OSError) as error:
        raise SystemExit(f"memory: {count} descriptors are needed, {hard} are allowed") from error


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--etcd", required=True)
    parser.add_argument("--conclave", required=True)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--watches", type=int, default=100_000)
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--only", choices=["connections", "watches", "keys"], help="one part of the table")
    parser.add_argument("--bring", choices=list(PARTS), help="(this is the process that does it)")
    parser.add_argument("--address", help="(to this server)")
    args = parser.parse_args()
    allow_descriptors(args.connections + DESCRIPTORS_SPARE)
    if args.bring:
        asyncio.run(bring(args.bring, args.address, args))
    servers = {"etcd": args.etcd, "conclave": args.conclave}
    wanted = [
        ("nothing", 0, "nothing"),
        (f"{args.connections:,} idle connections", args.connections, "connections"),
        (f"{args.watches:,} watches of as many keys, {args.streams:,} streams", args.watches, "watches"),
        (f"{args.watches:,} watches of {max(args.watches // 1000, 1):,} keys, {args.streams:,} streams", args.watches,
         "shared-watches"),
        (f"{args.keys:,} keys of {KEY_BYTES} B, values of {VALUE_BYTES} B", args.keys, "keys"),
    ]
    rows = []
    for label, count, part in wanted:
        if args.only is None or part == "nothing" or part.endswith(args.only):
            sizes = {}
            for name, binary in servers.items():
                sizes[name] = measure(name, binary, part)
                print(f"{label}: {name} {megabytes(sizes[name])} MB", file=sys.stderr)
            rows.append((label, count, sizes))
    show(rows, list(servers))


if __name__ == "__main__":
    main()
