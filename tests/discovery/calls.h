// Calls to the Greeter in the tests of channels: one by one, and as load that counts its failures.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "conclave/examples/greeter.grpc.pb.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::testing {

struct Answer {
  grpc::Status status;
  std::string backend;
};

inline Answer Call(examples::Greeter::Stub& stub, bool wait_for_ready = false,
                   absl::Duration timeout = absl::Seconds(10)) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  context.set_wait_for_ready(wait_for_ready);
  examples::GreetRequest request;
  request.set_name("you");
  examples::GreetReply reply;
  Answer answer;
  answer.status = stub.Greet(&context, request, &reply);
  answer.backend = reply.backend();
  return answer;
}

// Unary and streaming callers at full speed, each call with its deadline.
class Load {
 public:
  explicit Load(const std::shared_ptr<grpc::Channel>& channel) {
    for (int i = 0; i < 2; ++i) threads_.emplace_back([this, channel] { Unary(channel); });
    threads_.emplace_back([this, channel] { Streams(channel); });
  }
  ~Load() { Finish(); }

  void Finish() {
    stop_ = true;
    for (auto& thread : threads_) thread.join();
    threads_.clear();
  }
  // Waits for so many more calls and streams.
  void Progress(int calls, int streams) {
    const int calls_goal = calls_ + calls;
    const int streams_goal = streams_ + streams;
    EXPECT_TRUE(WaitFor([&] { return calls_ >= calls_goal && streams_ >= streams_goal; },
                        absl::Seconds(60)));
  }
  int calls() const { return calls_; }
  int streams() const { return streams_; }
  std::vector<std::string> failures() {
    std::lock_guard lock(mutex_);
    return failures_;
  }

 private:
  static constexpr int kReplies = 20;

  void Unary(const std::shared_ptr<grpc::Channel>& channel) {
    auto stub = examples::Greeter::NewStub(channel);
    while (!stop_) {
      const Answer answer = Call(*stub);
      ++calls_;
      if (!answer.status.ok()) Note(answer.status);
    }
  }
  void Streams(const std::shared_ptr<grpc::Channel>& channel) {
    auto stub = examples::Greeter::NewStub(channel);
    while (!stop_) {
      grpc::ClientContext context;
      context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(30)));
      examples::GreetManyRequest request;
      request.set_count(kReplies);
      request.set_interval_ms(5);
      auto reader = stub->GreetMany(&context, request);
      examples::GreetReply reply;
      int replies = 0;
      while (reader->Read(&reply)) ++replies;
      const grpc::Status status = reader->Finish();
      ++streams_;
      if (!status.ok()) Note(status);
      if (status.ok() && replies != kReplies) {
        Note(grpc::Status(grpc::StatusCode::DATA_LOSS, "a stream of too few replies"));
      }
    }
  }
  void Note(const grpc::Status& status) {
    std::lock_guard lock(mutex_);
    failures_.push_back(std::to_string(status.error_code()) + " " + status.error_message());
  }

  std::atomic<bool> stop_ = false;
  std::atomic<int> calls_ = 0;
  std::atomic<int> streams_ = 0;
  std::mutex mutex_;
  std::vector<std::string> failures_;
  std::vector<std::thread> threads_;
};

}  // namespace conclave::testing
