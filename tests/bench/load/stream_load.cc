#include "conclave/tests/bench/load/stream_load.h"

#include <chrono>
#include <deque>
#include <memory>

#include "conclave/api/rpc.pb.h"
#include "conclave/base/check.h"

namespace conclave::bench {
namespace {

using Clock = std::chrono::steady_clock;

enum class Operation { kStart, kWrite, kRead };

struct Stream;
struct Tag {
  Stream* stream;
  Operation operation;
};

// A raw stream with at most one read and one write under way.
struct Stream {
  Stream(grpc::GenericStub* stub, const std::string& method, grpc::CompletionQueue* queue)
      : call(stub->PrepareCall(&context, method, queue)) {
    call->StartCall(&start);
  }

  grpc::ClientContext context;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call;
  grpc::ByteBuffer incoming;
  std::deque<grpc::ByteBuffer> outgoing;
  bool writing = true;  // until the start is done
  Clock::time_point sent;
  int64_t lease = 0;
  Tag start{this, Operation::kStart};
  Tag write{this, Operation::kWrite};
  Tag read{this, Operation::kRead};

  void Send(grpc::ByteBuffer message) {
    outgoing.push_back(std::move(message));
    if (!writing) WriteNext();
  }
  void WriteNext() {
    writing = !outgoing.empty();
    if (!writing) return;
    call->Write(outgoing.front(), &write);
    outgoing.pop_front();
  }
};

template <typename Request, typename Response>
Response Call(grpc::GenericStub& stub, const std::string& method, const Request& request) {
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  grpc::ByteBuffer buffer;
  grpc::Status status;
  auto reader = stub.PrepareUnaryCall(&context, method, ToBuffer(request), &queue);
  reader->StartCall();
  reader->Finish(&buffer, &status, nullptr);
  void* tag;
  bool ok;
  CONCLAVE_CHECK(queue.Next(&tag, &ok) && status.ok(), method, ": ", status.error_message());
  Response response;
  CONCLAVE_CHECK(FromBuffer(buffer, &response), method);
  return response;
}

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

int64_t NanosecondsSince(Clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
}

// Cancels all streams and takes what is left out of the queue, so that both can be destroyed.
void Drain(std::vector<std::unique_ptr<Stream>>* streams, grpc::CompletionQueue* queue) {
  for (auto& stream : *streams) stream->context.TryCancel();
  queue->Shutdown();
  void* tag;
  bool ok;
  while (queue->Next(&tag, &ok)) {
  }
}

}  // namespace

Report RunKeepAlive(int clients, double seconds, Connections* connections) {
  grpc::CompletionQueue queue;
  std::vector<std::unique_ptr<Stream>> streams;
  Report report;
  report.operation = "keep-alive";
  for (int i = 0; i < clients; ++i) {
    etcdserverpb::LeaseGrantRequest grant;
    grant.set_ttl(600);
    const auto granted = Call<etcdserverpb::LeaseGrantRequest, etcdserverpb::LeaseGrantResponse>(
        connections->At(i), "/etcdserverpb.Lease/LeaseGrant", grant);
    streams.push_back(std::make_unique<Stream>(&connections->At(i),
                                               "/etcdserverpb.Lease/LeaseKeepAlive", &queue));
    streams.back()->lease = granted.id();
  }
  const auto renew = [](Stream* stream) {
    etcdserverpb::LeaseKeepAliveRequest request;
    request.set_id(stream->lease);
    stream->sent = Clock::now();
    stream->Send(ToBuffer(request));
  };
  const auto started = Clock::now();
  void* raw;
  bool ok;
  while (Since(started) < seconds && queue.Next(&raw, &ok)) {
    auto [stream, operation] = *static_cast<Tag*>(raw);
    CONCLAVE_CHECK(ok, "a keep-alive stream broke");
    switch (operation) {
      case Operation::kStart:
        stream->writing = false;
        stream->call->Read(&stream->incoming, &stream->read);
        renew(stream);
        break;
      case Operation::kWrite:
        stream->WriteNext();
        break;
      case Operation::kRead:
        report.latency.Record(NanosecondsSince(stream->sent));
        ++report.operations;
        stream->call->Read(&stream->incoming, &stream->read);
        renew(stream);
        break;
    }
  }
  report.seconds = Since(started);
  Drain(&streams, &queue);
  return report;
}

Report RunWatch(int watchers, int stream_count, double seconds, Connections* connections) {
  const std::string key = "watched";
  grpc::CompletionQueue queue;
  grpc::CompletionQueue put_queue;
  std::vector<std::unique_ptr<Stream>> streams;
  for (int i = 0; i < stream_count; ++i) {
    streams.push_back(
        std::make_unique<Stream>(&connections->At(i), "/etcdserverpb.Watch/Watch", &queue));
    for (int w = i; w < watchers; w += stream_count) {
      etcdserverpb::WatchRequest request;
      request.mutable_create_request()->set_key(key);
      streams.back()->outgoing.push_back(ToBuffer(request));
    }
  }
  Report report;
  report.operation = "watch";
  etcdserverpb::PutRequest put;
  put.set_key(key);
  put.set_value(std::string(256, 'v'));
  const grpc::ByteBuffer put_buffer = ToBuffer(put);

  int created = 0;
  int heard = 0;  // of the put under way
  Clock::time_point put_at;
  Clock::time_point started;
  const auto send_put = [&] {
    heard = 0;
    put_at = Clock::now();
    grpc::ClientContext context;
    grpc::ByteBuffer response;
    grpc::Status status;
    auto reader = connections->At(static_cast<size_t>(stream_count))
                      .PrepareUnaryCall(&context, "/etcdserverpb.KV/Put", put_buffer, &put_queue);
    reader->StartCall();
    reader->Finish(&response, &status, nullptr);
    void* tag;
    bool ok;
    CONCLAVE_CHECK(put_queue.Next(&tag, &ok) && status.ok(), status.error_message());
  };
  void* raw;
  bool ok;
  while ((created < watchers || Since(started) < seconds) && queue.Next(&raw, &ok)) {
    auto [stream, operation] = *static_cast<Tag*>(raw);
    CONCLAVE_CHECK(ok, "a watch stream broke");
    if (operation == Operation::kStart) {
      stream->call->Read(&stream->incoming, &stream->read);
      stream->WriteNext();
    } else if (operation == Operation::kWrite) {
      stream->WriteNext();
    } else {
      etcdserverpb::WatchResponse response;
      CONCLAVE_CHECK(FromBuffer(stream->incoming, &response));
      stream->call->Read(&stream->incoming, &stream->read);
      heard += response.events_size();
      if (response.created() && ++created == watchers) {
        started = Clock::now();
        send_put();
      }
      if (created == watchers && heard >= watchers) {
        report.operations += static_cast<uint64_t>(heard);
        report.latency.Record(NanosecondsSince(put_at));
        send_put();
      }
    }
  }
  report.seconds = Since(started);
  Drain(&streams, &queue);
  return report;
}

}  // namespace conclave::bench
