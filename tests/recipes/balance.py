"""A plain grpcio client of xds:///SERVICE: prints which backends answered, again and again.

usage: balance.py SERVICE    (GRPC_XDS_BOOTSTRAP_CONFIG or GRPC_XDS_BOOTSTRAP)
"""

import sys

try:
    import grpc
except ImportError as error:
    print("skip:", error)
    raise SystemExit

CALLS_PER_ROUND = 60


def main():
    channel = grpc.insecure_channel("xds:///" + sys.argv[1])
    greet = channel.unary_unary("/conclave.examples.Greeter/Greet", request_serializer=lambda b: b,
                                response_deserializer=lambda b: b)

    def call():
        try:
            reply = greet(b"\x0a\x06python", timeout=10)  # field 1: "python"
            return reply[reply.index(b"127.0.0.1"):].decode()
        except grpc.RpcError as error:
            return "failed: " + error.details()

    while True:
        print(*sorted({call() for _ in range(CALLS_PER_ROUND)}), flush=True)


main()
