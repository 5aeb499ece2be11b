#include "conclave/tests/bench/load/unary_load.h"

#include <chrono>
#include <memory>
#include <optional>
#include <vector>

namespace conclave::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Call {
  std::optional<grpc::ClientContext> context;
  std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader;
  grpc::ByteBuffer response;
  grpc::Status status;
  Clock::time_point started;
  size_t client = 0;
};

class Runner {
 public:
  Runner(const UnaryLoad& load, Connections* connections)
      : load_(load), connections_(connections), calls_(static_cast<size_t>(load.clients)) {
    report_.operation = load.operation;
  }

  Report Run() {
    started_ = Clock::now();
    if (load_.seconds > 0) {
      end_ = started_ + std::chrono::duration_cast<Clock::duration>(
                            std::chrono::duration<double>(load_.seconds));
    }
    for (size_t i = 0; i < calls_.size(); ++i) {
      calls_[i].client = i;
      idle_.push_back(&calls_[i]);
    }
    StartDue();
    while (in_flight_ > 0 || (!Over() && !idle_.empty())) {
      void* tag = nullptr;
      bool ok = false;
      const auto until = load_.rate > 0 ? NextDue() : Clock::time_point::max();
      switch (queue_.AsyncNext(&tag, &ok, Deadline(until))) {
        case grpc::CompletionQueue::GOT_EVENT:
          Finished(static_cast<Call*>(tag));
          break;
        case grpc::CompletionQueue::TIMEOUT:
          break;
        case grpc::CompletionQueue::SHUTDOWN:
          return report_;
      }
      StartDue();
    }
    report_.seconds = std::chrono::duration<double>(Clock::now() - started_).count();
    return report_;
  }

 private:
  static gpr_timespec Deadline(Clock::time_point until) {
    if (until == Clock::time_point::max()) return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(until - Clock::now());
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                        gpr_time_from_nanos(std::max<int64_t>(left.count(), 0), GPR_TIMESPAN));
  }

  bool Over() const {
    if (load_.total > 0 && issued_ >= load_.total) return true;
    return load_.seconds > 0 && Clock::now() >= end_;
  }

  Clock::time_point NextDue() const {
    return started_ + std::chrono::duration_cast<Clock::duration>(
                          std::chrono::duration<double>(static_cast<double>(issued_) / load_.rate));
  }

  void StartDue() {
    while (!idle_.empty() && !Over()) {
      const auto now = Clock::now();
      auto start = now;
      if (load_.rate > 0) {
        start = NextDue();
        if (start > now) return;
      }
      Call* call = idle_.back();
      idle_.pop_back();
      Start(call, start);
    }
  }

  void Start(Call* call, Clock::time_point start) {
    call->context.emplace();
    call->started = start;
    call->response.Clear();
    call->reader =
        connections_->At(call->client)
            .PrepareUnaryCall(&*call->context, load_.method, load_.request(issued_), &queue_);
    ++issued_;
    ++in_flight_;
    call->reader->StartCall();
    call->reader->Finish(&call->response, &call->status, call);
  }

  void Finished(Call* call) {
    --in_flight_;
    if (call->status.ok()) {
      ++report_.operations;
      report_.latency.Record(
          std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - call->started)
              .count());
    } else {
      if (report_.errors++ == 0) report_.first_error = call->status.error_message();
    }
    idle_.push_back(call);
  }

  const UnaryLoad& load_;
  Connections* connections_;
  grpc::CompletionQueue queue_;
  std::vector<Call> calls_;
  std::vector<Call*> idle_;
  Clock::time_point started_;
  Clock::time_point end_ = Clock::time_point::max();
  uint64_t issued_ = 0;
  uint64_t in_flight_ = 0;
  Report report_;
};

}  // namespace

Report Run(const UnaryLoad& load, Connections* connections) {
  return Runner(load, connections).Run();
}

}  // namespace conclave::bench
