// EchoLoad: calls in every style that gRPC C++ has, for as long as it lives, and what went wrong.
//
// Three callers, one thread each: blocking, by completion queue, by callback. Each goes round the
// four kinds of calls. A stream exchanges kMessages messages.
#pragma once

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "conclave/tests/discovery/picking/echo.grpc.pb.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::testing {

class EchoLoad {
 public:
  static constexpr int kMessages = 5;
  static constexpr int kStyles = 3;
  static constexpr int kKinds = 4;

  explicit EchoLoad(const std::shared_ptr<grpc::Channel>& channel) : stub_(Echo::NewStub(channel)) {
    threads_.emplace_back([this] { Run(0, &EchoLoad::Blocking); });
    threads_.emplace_back([this] { Run(1, &EchoLoad::ByQueue); });
    threads_.emplace_back([this] { Run(2, &EchoLoad::ByCallback); });
  }
  ~EchoLoad() { Finish(); }

  void Finish() {
    stop_ = true;
    for (auto& thread : threads_) thread.join();
    threads_.clear();
  }
  // Waits for so many more calls of every style and kind.
  void Progress(int calls) {
    std::array<int, kStyles * kKinds> goals{};
    for (size_t i = 0; i < goals.size(); ++i) goals[i] = done_[i] + calls;
    EXPECT_TRUE(WaitFor(
        [&] {
          for (size_t i = 0; i < goals.size(); ++i) {
            if (done_[i] < goals[i]) return false;
          }
          return true;
        },
        absl::Seconds(60)));
  }
  int calls() const {
    int sum = 0;
    for (const auto& count : done_) sum += count;
    return sum;
  }
  std::vector<std::string> failures() {
    std::lock_guard lock(mutex_);
    return failures_;
  }

 private:
  struct Call {
    Call() {
      context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(30)));
      request.set_text("x");
      request.set_count(kMessages);
      request.set_pause_ms(3);
    }
    grpc::ClientContext context;
    EchoRequest request;
    EchoReply reply;
    int replies = 0;
  };

  void Run(int style, grpc::Status (EchoLoad::*make)(int kind, Call& call)) {
    while (!stop_) {
      for (int kind = 0; kind < kKinds && !stop_; ++kind) {
        Call call;
        const grpc::Status status = (this->*make)(kind, call);
        const int expected = kind >= 2 ? kMessages : 1;
        if (!status.ok()) {
          Note(style, kind, std::to_string(status.error_code()) + " " + status.error_message());
        } else if (call.replies != expected) {
          Note(style, kind, "too few replies: " + std::to_string(call.replies));
        }
        ++done_[static_cast<size_t>(style * kKinds + kind)];
      }
    }
  }
  void Note(int style, int kind, const std::string& what) {
    std::lock_guard lock(mutex_);
    failures_.push_back("style " + std::to_string(style) + " kind " + std::to_string(kind) + ": " +
                        what);
  }

  grpc::Status Blocking(int kind, Call& call) {
    if (kind == 0) {
      call.replies = 1;
      return stub_->Unary(&call.context, call.request, &call.reply);
    }
    if (kind == 1) {
      auto writer = stub_->Collect(&call.context, &call.reply);
      for (int i = 0; i < kMessages && writer->Write(call.request); ++i) {
      }
      writer->WritesDone();
      call.replies = 1;
      return writer->Finish();
    }
    if (kind == 2) {
      auto reader = stub_->Repeat(&call.context, call.request);
      while (reader->Read(&call.reply)) ++call.replies;
      return reader->Finish();
    }
    auto stream = stub_->Chat(&call.context);
    for (int i = 0; i < kMessages; ++i) {
      if (stream->Write(call.request) && stream->Read(&call.reply)) ++call.replies;
    }
    stream->WritesDone();
    return stream->Finish();
  }

  // One operation at a time: starts it, and waits for its tag.
  class Queue {
   public:
    ~Queue() {
      queue.Shutdown();
      void* tag = nullptr;
      bool ok = false;
      while (queue.Next(&tag, &ok)) {
      }
    }
    bool Wait() {
      void* tag = nullptr;
      bool ok = false;
      return queue.Next(&tag, &ok) && ok;
    }
    grpc::CompletionQueue queue;
  };

  grpc::Status ByQueue(int kind, Call& call) {
    Queue queue;
    void* const tag = this;
    grpc::Status status;
    if (kind == 0) {
      auto reader = stub_->AsyncUnary(&call.context, call.request, &queue.queue);
      reader->Finish(&call.reply, &status, tag);
      queue.Wait();
      call.replies = 1;
    } else if (kind == 1) {
      auto writer = stub_->AsyncCollect(&call.context, &call.reply, &queue.queue, tag);
      bool ok = queue.Wait();
      for (int i = 0; i < kMessages && ok; ++i) {
        writer->Write(call.request, tag);
        ok = queue.Wait();
      }
      if (ok) {
        writer->WritesDone(tag);
        queue.Wait();
      }
      writer->Finish(&status, tag);
      queue.Wait();
      call.replies = 1;
    } else if (kind == 2) {
      auto reader = stub_->AsyncRepeat(&call.context, call.request, &queue.queue, tag);
      for (bool ok = queue.Wait(); ok;) {
        reader->Read(&call.reply, tag);
        ok = queue.Wait();
        call.replies += ok;
      }
      reader->Finish(&status, tag);
      queue.Wait();
    } else {
      auto stream = stub_->AsyncChat(&call.context, &queue.queue, tag);
      bool ok = queue.Wait();
      for (int i = 0; i < kMessages && ok; ++i) {
        stream->Write(call.request, tag);
        if (!(ok = queue.Wait())) break;
        stream->Read(&call.reply, tag);
        ok = queue.Wait();
        call.replies += ok;
      }
      if (ok) {
        stream->WritesDone(tag);
        queue.Wait();
      }
      stream->Finish(&status, tag);
      queue.Wait();
    }
    return status;
  }

  struct Ended {
    void operator()(const grpc::Status& with) {
      status = with;
      over.Notify();
    }
    grpc::Status Wait() {
      over.WaitForNotification();
      return status;
    }
    grpc::Status status;
    absl::Notification over;
  };
  struct Collector final : grpc::ClientWriteReactor<EchoRequest> {
    explicit Collector(Call& c) : call(c) {}
    void Next() {
      if (left-- > 0) {
        StartWrite(&call.request);
      } else {
        StartWritesDone();
      }
    }
    void OnWriteDone(bool ok) override {
      if (ok) Next();
    }
    void OnDone(const grpc::Status& status) override { ended(status); }
    Call& call;
    int left = kMessages;
    Ended ended;
  };
  struct Repeater final : grpc::ClientReadReactor<EchoReply> {
    explicit Repeater(Call& c) : call(c) {}
    void OnReadDone(bool ok) override {
      if (!ok) return;
      ++call.replies;
      StartRead(&call.reply);
    }
    void OnDone(const grpc::Status& status) override { ended(status); }
    Call& call;
    Ended ended;
  };
  struct Chatter final : grpc::ClientBidiReactor<EchoRequest, EchoReply> {
    explicit Chatter(Call& c) : call(c) {}
    void OnWriteDone(bool ok) override {
      if (ok) StartRead(&call.reply);
    }
    void OnReadDone(bool ok) override {
      if (!ok) return;
      if (++call.replies < kMessages) {
        StartWrite(&call.request);
      } else {
        StartWritesDone();
      }
    }
    void OnDone(const grpc::Status& status) override { ended(status); }
    Call& call;
    Ended ended;
  };

  grpc::Status ByCallback(int kind, Call& call) {
    if (kind == 0) {
      Ended ended;
      stub_->async()->Unary(&call.context, &call.request, &call.reply,
                            [&ended](const grpc::Status& status) { ended(status); });
      call.replies = 1;
      return ended.Wait();
    }
    if (kind == 1) {
      Collector collector(call);
      stub_->async()->Collect(&call.context, &call.reply, &collector);
      collector.Next();
      collector.StartCall();
      call.replies = 1;
      return collector.ended.Wait();
    }
    if (kind == 2) {
      Repeater repeater(call);
      stub_->async()->Repeat(&call.context, &call.request, &repeater);
      repeater.StartRead(&call.reply);
      repeater.StartCall();
      return repeater.ended.Wait();
    }
    Chatter chatter(call);
    stub_->async()->Chat(&call.context, &chatter);
    chatter.StartWrite(&call.request);
    chatter.StartCall();
    return chatter.ended.Wait();
  }

  const std::unique_ptr<Echo::Stub> stub_;
  std::atomic<bool> stop_ = false;
  std::array<std::atomic<int>, kStyles * kKinds> done_{};
  std::mutex mutex_;
  std::vector<std::string> failures_;  // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace conclave::testing
