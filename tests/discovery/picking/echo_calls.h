// One call of Echo in each of the styles that gRPC's stubs offer: blocking, by completion queue and
// by callback, each for all four kinds of calls; and by generic stub.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "conclave/tests/discovery/picking/echo.grpc.pb.h"

namespace conclave::testing {

struct Echoed {
  grpc::Status status{};
  std::string backend{};
  int replies = 0;
};

struct EchoOptions {
  absl::Duration timeout = absl::Seconds(20);
  bool wait_for_ready = false;
  std::string user{};  // the metadata "x-user"
  int pause_ms = 0;
  int messages = 3;  // of streams
};

inline void Prepare(grpc::ClientContext& context, const EchoOptions& options) {
  context.set_deadline(absl::ToChronoTime(absl::Now() + options.timeout));
  context.set_wait_for_ready(options.wait_for_ready);
  if (!options.user.empty()) context.AddMetadata("x-user", options.user);
}
inline EchoRequest RequestOf(const EchoOptions& options) {
  EchoRequest request;
  request.set_text("hello");
  request.set_count(options.messages);
  request.set_pause_ms(options.pause_ms);
  return request;
}
inline void Note(const EchoReply& reply, Echoed* echoed) {
  ++echoed->replies;
  if (!echoed->backend.empty() && echoed->backend != reply.backend()) {
    echoed->status = {grpc::StatusCode::DATA_LOSS, "one stream, two backends"};
  }
  echoed->backend = reply.backend();
}
// A stream of too few replies that says it is OK is not.
inline void Check(const EchoOptions& options, int replies, Echoed* echoed) {
  if (echoed->status.ok() && echoed->replies != replies) {
    echoed->status = {grpc::StatusCode::DATA_LOSS, "replies: " + std::to_string(echoed->replies) +
                                                       " of " + std::to_string(replies)};
  }
  (void)options;
}

// ---- blocking ----

inline Echoed BlockingUnary(Echo::Stub& stub, const EchoOptions& options) {
  grpc::ClientContext context;
  Prepare(context, options);
  Echoed echoed;
  EchoReply reply;
  echoed.status = stub.Unary(&context, RequestOf(options), &reply);
  if (echoed.status.ok()) Note(reply, &echoed);
  return echoed;
}

inline Echoed BlockingCollect(Echo::Stub& stub, const EchoOptions& options) {
  grpc::ClientContext context;
  Prepare(context, options);
  Echoed echoed;
  EchoReply reply;
  auto writer = stub.Collect(&context, &reply);
  for (int i = 0; i < options.messages && writer->Write(RequestOf(options)); ++i) {
  }
  writer->WritesDone();
  echoed.status = writer->Finish();
  if (echoed.status.ok()) {
    Note(reply, &echoed);
    echoed.replies = reply.count();
    Check(options, options.messages, &echoed);
  }
  return echoed;
}

inline Echoed BlockingRepeat(Echo::Stub& stub, const EchoOptions& options) {
  grpc::ClientContext context;
  Prepare(context, options);
  Echoed echoed;
  auto reader = stub.Repeat(&context, RequestOf(options));
  EchoReply reply;
  while (reader->Read(&reply)) Note(reply, &echoed);
  const grpc::Status status = reader->Finish();
  if (echoed.status.ok()) echoed.status = status;
  Check(options, options.messages, &echoed);
  return echoed;
}

inline Echoed BlockingChat(Echo::Stub& stub, const EchoOptions& options) {
  grpc::ClientContext context;
  Prepare(context, options);
  Echoed echoed;
  auto stream = stub.Chat(&context);
  EchoReply reply;
  for (int i = 0; i < options.messages; ++i) {
    if (!stream->Write(RequestOf(options)) || !stream->Read(&reply)) break;
    Note(reply, &echoed);
  }
  stream->WritesDone();
  const grpc::Status status = stream->Finish();
  if (echoed.status.ok()) echoed.status = status;
  Check(options, options.messages, &echoed);
  return echoed;
}

// ---- completion queue: one of its own for each call, so that the steps can be written one after
// the other ----

class Steps {
 public:
  ~Steps() {
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
  }
  grpc::CompletionQueue* queue() { return &queue_; }
  bool Next() {
    void* tag = nullptr;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }

 private:
  grpc::CompletionQueue queue_;
};

inline Echoed QueuedUnary(Echo::Stub& stub, const EchoOptions& options) {
  grpc::ClientContext context;
  Prepare(context, options);
  Steps steps;
  Echoed echoed;
  EchoReply reply;
  auto call = stub.AsyncUnary(&context, RequestOf(options), steps.queue());
  call->Finish(&reply, &echoed.status, nullptr);
  steps.Next();
  if (echoed.status.ok()) Note(reply, &echoed);
  return echoed;
}

inline Echoed QueuedCollect(Echo::Stub& stub, const EchoOptions& options) {
  grpc::ClientContext context;
  Prepare(context, options);
  Steps steps;
  Echoed echoed;
  EchoReply reply;
  auto call = stub.AsyncCollect(&context, &reply, steps.queue(), nullptr);
  bool ok = steps.Next();
  for (int i = 0; i < options.messages && ok; ++i) {
    call->Write(RequestOf(options), nullptr);
    ok = steps.Next();
  }
  if (ok) {
    call->WritesDone(nullptr);
    steps.Next();
  }
  call->Finish(&echoed.status, nullptr);
  steps.Next();
  if (echoed.status.ok()) {
    Note(reply, &echoed);
    echoed.replies = reply.count();
    Check(options, options.messages, &echoed);
  }
  return echoed;
}

inline Echoed QueuedRepeat(Echo::Stub& stub, const EchoOptions& options) {
  grpc::ClientContext context;
  Prepare(context, options);
  Steps steps;
  Echoed echoed;
  EchoReply reply;
  auto call = stub.AsyncRepeat(&context, RequestOf(options), steps.queue(), nullptr);
  bool ok = steps.Next();
  while (ok) {
    call->Read(&reply, nullptr);
    ok = steps.Next();
    if (ok) Note(reply, &echoed);
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  steps.Next();
  if (echoed.status.ok()) echoed.status = status;
  Check(options, options.messages, &echoed);
  return echoed;
}

inline Echoed QueuedChat(Echo::Stub& stub, const EchoOptions& options) {
  grpc::ClientContext context;
  Prepare(context, options);
  Steps steps;
  Echoed echoed;
  EchoReply reply;
  auto call = stub.AsyncChat(&context, steps.queue(), nullptr);
  bool ok = steps.Next();
  for (int i = 0; i < options.messages && ok; ++i) {
    call->Write(RequestOf(options), nullptr);
    ok = steps.Next();
    if (!ok) break;
    call->Read(&reply, nullptr);
    ok = steps.Next();
    if (ok) Note(reply, &echoed);
  }
  if (ok) {
    call->WritesDone(nullptr);
    steps.Next();
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  steps.Next();
  if (echoed.status.ok()) echoed.status = status;
  Check(options, options.messages, &echoed);
  return echoed;
}

// ---- callbacks ----

inline Echoed CallbackUnary(Echo::Stub& stub, const EchoOptions& options) {
  struct Reactor : grpc::ClientUnaryReactor {
    void OnDone(const grpc::Status& ended) override {
      status = ended;
      done.Notify();
    }
    grpc::Status status;
    absl::Notification done;
  } reactor;
  grpc::ClientContext context;
  Prepare(context, options);
  Echoed echoed;
  EchoReply reply;
  const EchoRequest request = RequestOf(options);
  stub.async()->Unary(&context, &request, &reply, &reactor);
  reactor.StartCall();
  reactor.done.WaitForNotification();
  echoed.status = reactor.status;
  if (echoed.status.ok()) Note(reply, &echoed);
  return echoed;
}

inline Echoed FunctionUnary(Echo::Stub& stub, const EchoOptions& options) {
  grpc::ClientContext context;
  Prepare(context, options);
  Echoed echoed;
  EchoReply reply;
  const EchoRequest request = RequestOf(options);
  absl::Notification done;
  stub.async()->Unary(&context, &request, &reply, [&](grpc::Status ended) {
    echoed.status = std::move(ended);
    done.Notify();
  });
  done.WaitForNotification();
  if (echoed.status.ok()) Note(reply, &echoed);
  return echoed;
}

inline Echoed CallbackCollect(Echo::Stub& stub, const EchoOptions& options) {
  struct Reactor : grpc::ClientWriteReactor<EchoRequest> {
    void OnWriteDone(bool ok) override {
      if (ok && ++written < messages) {
        StartWrite(&request);
      } else {
        StartWritesDone();
      }
    }
    void OnDone(const grpc::Status& ended) override {
      status = ended;
      done.Notify();
    }
    EchoRequest request;
    int messages = 0;
    int written = 0;
    grpc::Status status;
    absl::Notification done;
  } reactor;
  grpc::ClientContext context;
  Prepare(context, options);
  Echoed echoed;
  EchoReply reply;
  reactor.request = RequestOf(options);
  reactor.messages = options.messages;
  stub.async()->Collect(&context, &reply, &reactor);
  reactor.StartWrite(&reactor.request);
  reactor.StartCall();
  reactor.done.WaitForNotification();
  echoed.status = reactor.status;
  if (echoed.status.ok()) {
    Note(reply, &echoed);
    echoed.replies = reply.count();
    Check(options, options.messages, &echoed);
  }
  return echoed;
}

inline Echoed CallbackRepeat(Echo::Stub& stub, const EchoOptions& options) {
  struct Reactor : grpc::ClientReadReactor<EchoReply> {
    void OnReadDone(bool ok) override {
      if (!ok) return;
      Note(reply, &echoed);
      StartRead(&reply);
    }
    void OnDone(const grpc::Status& ended) override {
      if (echoed.status.ok()) echoed.status = ended;
      done.Notify();
    }
    EchoReply reply;
    Echoed echoed;
    absl::Notification done;
  } reactor;
  grpc::ClientContext context;
  Prepare(context, options);
  const EchoRequest request = RequestOf(options);
  stub.async()->Repeat(&context, &request, &reactor);
  reactor.StartRead(&reactor.reply);
  reactor.StartCall();
  reactor.done.WaitForNotification();
  Check(options, options.messages, &reactor.echoed);
  return reactor.echoed;
}

inline Echoed CallbackChat(Echo::Stub& stub, const EchoOptions& options) {
  struct Reactor : grpc::ClientBidiReactor<EchoRequest, EchoReply> {
    void OnWriteDone(bool ok) override {
      if (ok) StartRead(&reply);
    }
    void OnReadDone(bool ok) override {
      if (ok) Note(reply, &echoed);
      if (!ok) return;
      if (echoed.replies < messages) {
        StartWrite(&request);
      } else {
        StartWritesDone();
      }
    }
    void OnDone(const grpc::Status& ended) override {
      if (echoed.status.ok()) echoed.status = ended;
      done.Notify();
    }
    EchoRequest request;
    EchoReply reply;
    int messages = 0;
    Echoed echoed;
    absl::Notification done;
  } reactor;
  grpc::ClientContext context;
  Prepare(context, options);
  reactor.request = RequestOf(options);
  reactor.messages = options.messages;
  stub.async()->Chat(&context, &reactor);
  reactor.StartWrite(&reactor.request);
  reactor.StartCall();
  reactor.done.WaitForNotification();
  Check(options, options.messages, &reactor.echoed);
  return reactor.echoed;
}

// ---- all of them ----

struct Style {
  std::string name;
  std::function<Echoed(Echo::Stub& stub, const EchoOptions& options)> call;
};

inline std::vector<Style> AllStyles() {
  return {{"blocking unary", BlockingUnary},     {"blocking collect", BlockingCollect},
          {"blocking repeat", BlockingRepeat},   {"blocking chat", BlockingChat},
          {"queued unary", QueuedUnary},         {"queued collect", QueuedCollect},
          {"queued repeat", QueuedRepeat},       {"queued chat", QueuedChat},
          {"callback unary", CallbackUnary},     {"function unary", FunctionUnary},
          {"callback collect", CallbackCollect}, {"callback repeat", CallbackRepeat},
          {"callback chat", CallbackChat}};
}

// By the generic stub, which knows no method when it is made.
inline Echoed GenericUnary(const std::shared_ptr<grpc::ChannelInterface>& channel,
                           const EchoOptions& options) {
  grpc::TemplatedGenericStub<EchoRequest, EchoReply> stub(channel);
  grpc::ClientContext context;
  Prepare(context, options);
  Echoed echoed;
  EchoReply reply;
  const EchoRequest request = RequestOf(options);
  absl::Notification done;
  stub.UnaryCall(&context, "/conclave.testing.Echo/Unary", grpc::StubOptions(), &request, &reply,
                 [&](grpc::Status ended) {
                   echoed.status = std::move(ended);
                   done.Notify();
                 });
  done.WaitForNotification();
  if (echoed.status.ok()) Note(reply, &echoed);
  return echoed;
}

}  // namespace conclave::testing
