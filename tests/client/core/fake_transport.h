// FakeTransport: the network as a test wants it. It notes what the engine asks for; the test
// answers by hand, and moves the time.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/api/rpc.pb.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/transport.h"
#include "gtest/gtest.h"

namespace conclave::testing {

class FakeTransport : public Transport {
 public:
  struct Call {
    WireId id = 0;
    size_t endpoint = 0;
    std::string method;
    std::string request;
    Duration timeout{};
    bool require_leader = false;
    bool cancelled = false;
    std::string token;
  };
  struct Stream {
    WireId id = 0;
    size_t endpoint = 0;
    std::string method;
    std::vector<std::string> sent;
    bool closed = false;
    bool paused = false;
    std::string token;
  };

  void StartUnary(const Unary& call) override {
    calls.push_back({call.id, call.endpoint, std::string(call.method), std::string(call.request),
                     call.timeout, call.require_leader, false, token});
  }
  void CancelUnary(WireId id) override {
    for (Call& call : calls) call.cancelled |= call.id == id;
  }
  void OpenStream(WireId id, size_t endpoint, std::string_view method) override {
    streams.push_back(
        {.id = id, .endpoint = endpoint, .method = std::string(method), .token = token});
  }
  void SendOnStream(WireId id, std::string_view message) override {
    Find(id).sent.emplace_back(message);
  }
  void OpenDownload(WireId id, size_t endpoint, std::string_view method,
                    std::string_view request) override {
    OpenStream(id, endpoint, method);
    SendOnStream(id, request);
  }
  void CloseStream(WireId id) override { Find(id).closed = true; }
  void PauseStream(WireId id, bool paused) override { Find(id).paused = paused; }

  void SetToken(std::string_view current) override { token = current; }

  void AddEndpoint(size_t endpoint, std::string_view name) override { added[endpoint] = name; }
  void RemoveEndpoint(size_t endpoint) override { removed.insert(endpoint); }

  Stream& Find(WireId id) {
    for (Stream& stream : streams) {
      if (stream.id == id) return stream;
    }
    ADD_FAILURE() << "no stream " << id;
    static Stream none;
    return none;
  }

  std::vector<Call> calls;  // all that were started
  std::vector<Stream> streams;
  std::map<size_t, std::string> added;  // endpoints
  std::set<size_t> removed;
  std::string token;  // that calls and streams carry now
};

// An engine over the fake, with three members and a clock that the test turns.
class EngineFixture : public ::testing::Test {
 protected:
  explicit EngineFixture(size_t members = 3) : EngineFixture(Options(members)) {}
  explicit EngineFixture(EngineOptions options) : engine_(std::move(options), wire_) {
    Go(Duration(0));
  }
  // While the test's own members still live: Shutdown answers every call.
  void TearDown() override { engine_.Shutdown(); }

  static EngineOptions Options(size_t members) {
    EngineOptions options{.seed = 7};
    for (size_t i = 0; i < members; ++i) options.endpoints.push_back("m" + std::to_string(i));
    return options;
  }

  // Lets time pass, in steps, so that every timer runs at its time.
  void Go(Duration duration) {
    const Instant end = now_ + duration;
    engine_.Advance(now_);
    while (engine_.NextDeadline() <= end) {
      now_ = std::max(now_, engine_.NextDeadline());
      engine_.Advance(now_);
    }
    now_ = end;
    engine_.Advance(now_);
  }
  FakeTransport::Call& LastCall() { return wire_.calls.back(); }
  FakeTransport::Stream& LastStream() { return wire_.streams.back(); }

  template <typename Message>
  void Answer(const Message& message) {
    engine_.OnUnaryDone(LastCall().id, {}, message.SerializeAsString());
    engine_.Advance(now_);
  }
  void FailCall(int code, const std::string& text, bool sent = true) {
    engine_.OnUnaryDone(LastCall().id, {.code = code, .message = text, .sent = sent}, "");
    engine_.Advance(now_);
  }
  template <typename Message>
  void Say(const Message& message) {
    engine_.OnStreamMessage(LastStream().id, message.SerializeAsString());
    engine_.Advance(now_);
  }
  void BreakStream() {
    engine_.OnStreamClosed(LastStream().id, {.code = 14, .message = "gone"});
    engine_.Advance(now_);
  }
  // The i-th message that was sent on the last stream.
  template <typename Message>
  Message Sent(size_t i) {
    Message message;
    const bool there = i < LastStream().sent.size();
    EXPECT_TRUE(there && message.ParseFromString(LastStream().sent[i]));
    return message;
  }

  Instant now_ = Instant(std::chrono::hours(1));
  FakeTransport wire_;
  Engine engine_;
};

}  // namespace conclave::testing
