// EchoCore: a stand-in for the node, to measure the transport alone. It answers every unary call at
// once with bytes that were made beforehand, and echoes what comes on a stream.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "conclave/server/rpc/transport.h"

namespace conclave::rpc::testing {

class EchoCore : public BurstHandler {
 public:
  enum class Mode { kInline, kThread };

  explicit EchoCore(Mode mode) : mode_(mode) {
    if (mode_ == Mode::kThread) thread_ = std::thread([this] { Run(); });
  }
  ~EchoCore() override { Stop(); }

  void Attach(Transport* transport) {
    std::lock_guard lock(mutex_);
    transport_ = transport;
  }
  void SetAnswer(Bytes answer) { answer_ = std::move(answer); }
  void Stop() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
      condition_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
  }

  Instant OnBurst(int /*queue*/, std::vector<node::Input>* inputs) override {
    if (inputs->empty()) return kNever;
    if (mode_ == Mode::kInline) {
      Turn(inputs);
      return kNever;
    }
    std::lock_guard lock(mutex_);
    for (node::Input& input : *inputs) mailbox_.push_back(std::move(input));
    inputs->clear();
    condition_.notify_one();
    return kNever;
  }

 private:
  void Run() {
    std::vector<node::Input> inputs;
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      condition_.wait(lock,
                      [this] { return stopping_ || (!mailbox_.empty() && transport_ != nullptr); });
      inputs.swap(mailbox_);
      lock.unlock();
      Turn(&inputs);
      lock.lock();
    }
  }

  void Turn(std::vector<node::Input>* inputs) {
    for (node::Input& input : *inputs) {
      if (auto* call = std::get_if<node::UnaryCall>(&input)) {
        effects_.replies.push_back({call->id, nullptr, answer_});
      } else if (auto* message = std::get_if<node::StreamMessage>(&input)) {
        effects_.streams.push_back(
            {message->id, std::move(message->message), {}, 0, false, nullptr});
      } else if (auto* half = std::get_if<node::StreamHalfClosed>(&input)) {
        effects_.streams.push_back({half->id, {}, {}, 0, true, nullptr});
        finished_ = half->id;
      } else if (auto* closed = std::get_if<node::StreamClosed>(&input)) {
        if (closed->id != finished_)
          effects_.streams.push_back({closed->id, {}, {}, 0, true, nullptr});
      }
    }
    inputs->clear();
    transport_->CarryOut(&effects_);
  }

  const Mode mode_;
  Transport* transport_ = nullptr;
  Bytes answer_;
  node::CallId finished_;
  node::Effects effects_;
  std::mutex mutex_;
  std::condition_variable condition_;
  std::vector<node::Input> mailbox_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace conclave::rpc::testing
