"""Every method of the protocol, by its name, from the generated messages; and calls of them as somebody.

Import it when the folder of the generated messages stands in sys.path."""

import grpc

from google.protobuf import symbol_database

from conclave.api import auth_pb2, election_pb2, kv_pb2, lock_pb2, rpc_pb2  # noqa: F401

CALL_SECONDS_MAX = 30


class Method:
    def __init__(self, descriptor, messages):
        self.name = descriptor.name
        self.service = descriptor.containing_service.name
        self.path = f"/{descriptor.containing_service.full_name}/{descriptor.name}"
        self.request, self.response = (messages.GetPrototype(descriptor.input_type),
                                       messages.GetPrototype(descriptor.output_type))


def _methods():
    messages = symbol_database.Default()
    return {method.name: Method(method, messages)
            for file in (rpc_pb2, lock_pb2, election_pb2)
            for service in file.DESCRIPTOR.services_by_name.values() for method in service.methods}


METHODS = _methods()


class Refused(Exception):
    def __init__(self, error):
        super().__init__(f"{error.code().name}: {error.details()}")
        self.code, self.text = error.code().name, error.details()


class Caller:
    """Calls to one member by somebody: who he is follows from `metadata`, and from the channel's certificate."""

    def __init__(self, channel, metadata=()):
        self.channel, self.metadata = channel, tuple(metadata)

    def call(self, method, seconds=CALL_SECONDS_MAX, **fields):
        of = METHODS[method]
        try:
            raw = self.channel.unary_unary(of.path)(of.request(**fields).SerializeToString(), timeout=seconds,
                                                    metadata=self.metadata)
        except grpc.RpcError as error:
            raise Refused(error) from error
        return of.response.FromString(raw)

    def refusal(self, method, **fields):
        """The error's text, or "" if there is none."""
        try:
            self.call(method, **fields)
        except Refused as error:
            return error.text
        return ""

    def stream(self, method, *requests, seconds=CALL_SECONDS_MAX):
        """The responses to these requests, one after the other; the stream ends by itself, or by cancel()."""
        of = METHODS[method]
        raw = self.channel.stream_stream(of.path, response_deserializer=of.response.FromString)(
            iter([request.SerializeToString() for request in requests]), timeout=seconds, metadata=self.metadata)
        return raw

    def with_token(self, token):
        return Caller(self.channel, [("token", token)])

    def log_in(self, user, password):
        return self.with_token(self.call("Authenticate", name=user, password=password).token)


def set_up_users(nobody):
    """root (password root); ann (password ann), who may read and write a..., and read r. Authentication is on."""
    nobody.call("UserAdd", name="root", password="root")
    nobody.call("UserGrantRole", user="root", role="root")
    nobody.call("UserAdd", name="ann", password="ann")
    nobody.call("RoleAdd", name="some")
    read, read_write = auth_pb2.Permission.READ, auth_pb2.Permission.READWRITE
    nobody.call("RoleGrantPermission", name="some",
                perm=auth_pb2.Permission(permType=read_write, key=b"a", range_end=b"b"))
    nobody.call("RoleGrantPermission", name="some", perm=auth_pb2.Permission(permType=read, key=b"r"))
    nobody.call("UserGrantRole", user="ann", role="some")
    nobody.call("AuthEnable")
