// What a request costs in the state machine, from its bytes to the response's, and how often it
// allocates.
//
// `allocations` counts operator new per request, without that of the request's own buffer: the
// reply's is the only one. The store's record is a malloc of its own, which is not counted.
#include <benchmark/benchmark.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "conclave/api/wire/writer.h"
#include "conclave/server/apply/snapshot.h"
#include "conclave/server/apply/state_machine.h"

namespace {

std::atomic<uint64_t> allocations{0};

}  // namespace

// The compiler cannot see that new and delete are replaced together.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"

void* operator new(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(size)) return memory;
  std::abort();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace conclave::apply {
namespace {

constexpr size_t kValueSize = 256;

class Bench {
 public:
  explicit Bench(int64_t keys = 0) {
    StateMachineOptions options;
    options.member_id = 1;
    options.quota_bytes = int64_t{16} << 30;
    state_ = std::make_unique<StateMachine>(options);
    for (int64_t i = 0; i < keys; ++i) Write(wire::Method::kPut, Put(Key(i)), false);
  }

  static std::string Key(int64_t i) {
    std::string key = "/bench/keys/" + std::to_string(1000000000 + i);
    return key;
  }
  static std::string Put(const std::string& key) {
    wire::Builder builder;
    builder.AppendText(1, key);
    builder.AppendText(2, std::string(kValueSize, 'v'));
    return std::string(builder.view());
  }
  static std::string Range(const std::string& key, const std::string& end = "", int64_t limit = 0) {
    wire::Builder builder;
    builder.AppendText(1, key);
    builder.AppendText(2, end);
    builder.AppendNumber(3, limit);
    return std::string(builder.view());
  }

  // The call's way without the network: check, header, apply.
  Bytes Write(wire::Method method, const std::string& request, bool want_response = true) {
    char* at;
    Bytes buffer = Bytes::Uninitialized(kCommandHeaderSize + request.size(), &at);
    request.copy(at + kCommandHeaderSize, request.size());
    const RequestCheck check = state_->Check(method, buffer.view().substr(kCommandHeaderSize));
    if (check.error != nullptr) std::abort();
    const Bytes payload = state_->Prepare(method, std::move(buffer), 1, ++sequence_, &prng_);
    ApplyContext context;
    context.index = state_->applied_index() + 1;
    context.want_response = want_response;
    ApplyResult result = state_->Apply(context, payload);
    if (result.error != nullptr) std::abort();
    return std::move(result.response);
  }

  Bytes Read(wire::Method method, std::string_view request) {
    const RequestCheck check = state_->Check(method, request);
    if (check.error != nullptr) std::abort();
    ReadResult result = state_->Read({}, method, request);
    if (result.task == nullptr) return std::move(result.response);
    while (!result.task->Run(1000)) {
    }
    return result.task->TakeResponse();
  }

  StateMachine& state() { return *state_; }

 private:
  std::unique_ptr<StateMachine> state_;
  Prng prng_{1};
  uint64_t sequence_ = 0;
};

// Counts what the loop allocates beside the buffer that a request comes in (`own` of them per
// turn).
class AllocationCounter {
 public:
  AllocationCounter(benchmark::State& state, int own) : state_(state), own_(own) {
    start_ = allocations.load();
  }
  ~AllocationCounter() {
    const auto turns = static_cast<double>(state_.iterations());
    state_.counters["allocations"] =
        static_cast<double>(allocations.load() - start_) / turns - own_;
  }

 private:
  benchmark::State& state_;
  int own_;
  uint64_t start_;
};

void PutOneKey(benchmark::State& state) {
  Bench bench;
  const std::string request = Bench::Put(Bench::Key(0));
  AllocationCounter counter(state, 1);
  for (auto _ : state) {
    benchmark::DoNotOptimize(bench.Write(wire::Method::kPut, request));
    // What a server does now and then, or memory would grow with the number of turns.
    const int64_t revision = bench.state().store().current_revision();
    if (revision % 10000 == 0) {
      state.PauseTiming();
      (void)bench.state().store().Compact(revision);
      while (bench.state().CompactSlice(100000)) {
      }
      state.ResumeTiming();
    }
  }
}
BENCHMARK(PutOneKey);

void PutDistinctKeys(benchmark::State& state) {
  Bench bench(state.range(0));
  std::vector<std::string> requests;
  Prng prng(3);
  for (int i = 0; i < 65536; ++i) {
    requests.push_back(Bench::Put(
        Bench::Key(static_cast<int64_t>(prng.Below(static_cast<uint64_t>(state.range(0)))))));
  }
  size_t next = 0;
  AllocationCounter counter(state, 1);
  for (auto _ : state) {
    benchmark::DoNotOptimize(bench.Write(wire::Method::kPut, requests[next++ % requests.size()]));
  }
}
BENCHMARK(PutDistinctKeys)->Arg(1000)->Arg(1000000)->Iterations(500000);

void GetOneKey(benchmark::State& state) {
  Bench bench(state.range(0));
  std::vector<std::string> requests;
  Prng prng(3);
  for (int i = 0; i < 65536; ++i) {
    requests.push_back(Bench::Range(
        Bench::Key(static_cast<int64_t>(prng.Below(static_cast<uint64_t>(state.range(0)))))));
  }
  size_t next = 0;
  AllocationCounter counter(state, 0);
  for (auto _ : state) {
    benchmark::DoNotOptimize(bench.Read(wire::Method::kRange, requests[next++ % requests.size()]));
  }
}
BENCHMARK(GetOneKey)->Arg(1)->Arg(1000)->Arg(1000000);

void TxnOfFourPuts(benchmark::State& state) {
  Bench bench;
  wire::Builder txn;
  for (int i = 0; i < 4; ++i) {
    const size_t op = txn.BeginMessage(2);
    const size_t put = txn.BeginMessage(2);
    txn.AppendRaw(Bench::Put(Bench::Key(i)));
    txn.EndMessage(put);
    txn.EndMessage(op);
  }
  const std::string request(txn.view());
  AllocationCounter counter(state, 1);
  for (auto _ : state) {
    benchmark::DoNotOptimize(bench.Write(wire::Method::kTxn, request));
    const int64_t revision = bench.state().store().current_revision();
    if (revision % 10000 == 0) {
      state.PauseTiming();
      (void)bench.state().store().Compact(revision);
      while (bench.state().CompactSlice(100000)) {
      }
      state.ResumeTiming();
    }
  }
}
BENCHMARK(TxnOfFourPuts);

void RangeOfHundredThousand(benchmark::State& state) {
  Bench bench(100000);
  const std::string request = Bench::Range(Bench::Key(0), std::string(1, '\0'));
  for (auto _ : state) {
    benchmark::DoNotOptimize(bench.Read(wire::Method::kRange, request));
  }
}
BENCHMARK(RangeOfHundredThousand)->Unit(benchmark::kMillisecond);

void RangeOverMillionWithLimitOne(benchmark::State& state) {
  Bench bench(1000000);
  const std::string request = Bench::Range(Bench::Key(0), std::string(1, '\0'), 1);
  for (auto _ : state) {
    benchmark::DoNotOptimize(bench.Read(wire::Method::kRange, request));
  }
}
BENCHMARK(RangeOverMillionWithLimitOne);

void SnapshotAndRestoreOfMillion(benchmark::State& state) {
  Bench bench(1000000);
  for (auto _ : state) {
    SnapshotTask task(&bench.state());
    RestoreTask restore{StateMachineOptions()};
    const auto start = std::chrono::steady_clock::now();
    while (true) {
      const Bytes piece = task.Next(1 << 20);
      if (piece.empty()) break;
      if (!restore.Feed(piece.view()).ok()) std::abort();
    }
    const auto written = std::chrono::steady_clock::now();
    auto restored = restore.Finish();
    if (!restored.ok()) std::abort();
    const auto finished = std::chrono::steady_clock::now();
    using Milliseconds = std::chrono::duration<double, std::milli>;
    state.counters["feed_ms"] = Milliseconds(written - start).count();
    state.counters["finish_ms"] = Milliseconds(finished - written).count();
  }
}
BENCHMARK(SnapshotAndRestoreOfMillion)->Unit(benchmark::kMillisecond)->Iterations(1);

}  // namespace
}  // namespace conclave::apply
