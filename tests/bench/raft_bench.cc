// What the Raft core costs a leader per turn, disk and network aside: three members, all in memory.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "conclave/server/raft/raw_node.h"

namespace {
uint64_t allocations = 0;
}  // namespace

#pragma GCC diagnostic ignored "-Wmismatched-new-delete"  // inlined, it sees new but not our delete

void* operator new(size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace conclave::raft {
namespace {

// A leader whose two followers say yes to everything, at once.
class Leader3 {
 public:
  Leader3()
      : node_({.id = NodeId(1)},
              {.snapshot = FoundingSnapshot({NodeId(1), NodeId(2), NodeId(3)})}) {
    node_.Campaign();
    while (!node_.leader_is_current()) Turn();
  }

  RawNode& node() { return node_; }

  // Takes a Ready, completes its write, and answers its messages for the followers.
  void Turn() {
    Ready ready = node_.TakeReady();
    for (const Envelope& envelope : ready.messages) Answer(envelope);
    if (ready.append.has_value()) {
      for (const Envelope& envelope : ready.append->messages) Answer(envelope);
      node_.Step(StorageAppended{ready.append->id});
    }
    if (!ready.committed.empty()) node_.Applied(ready.committed.back().index);
  }

 private:
  void Answer(const Envelope& to) {
    Envelope back{to.to, to.from, to.term, {}};
    if (const auto* vote = std::get_if<VoteRequest>(&to.message)) {
      back.message = VoteResponse{.pre_vote = vote->pre_vote, .granted = true};
    } else if (const auto* append = std::get_if<AppendEntries>(&to.message)) {
      back.message = AppendResponse{.index = append->prev_index + append->entries.size()};
    } else if (const auto* heartbeat = std::get_if<Heartbeat>(&to.message)) {
      back.message = HeartbeatResponse{heartbeat->round};
    }
    node_.Step(std::move(back));
  }

  RawNode node_;
};

void BM_Writes(benchmark::State& state) {
  Leader3 leader;
  const auto batch = static_cast<size_t>(state.range(0));
  const Bytes payload = Bytes::Copy(std::string(256, 'x'));
  std::vector<Bytes> payloads;
  const uint64_t allocations_before = allocations;
  for (auto _ : state) {
    payloads.assign(batch, payload);
    benchmark::DoNotOptimize(leader.node().Propose(payloads));
    leader.Turn();  // replicates, is acknowledged
    leader.Turn();  // commits
    if (leader.node().applied() - leader.node().first_index() > 10000) {
      leader.node().CompactLog(leader.node().applied());
    }
  }
  const auto entries = static_cast<double>(state.iterations()) * static_cast<double>(batch);
  state.SetItemsProcessed(static_cast<int64_t>(entries));
  state.counters["allocations/entry"] =
      static_cast<double>(allocations - allocations_before) / entries;
}
BENCHMARK(BM_Writes)->Arg(1)->Arg(10)->Arg(100)->Arg(1000);

void BM_Reads(benchmark::State& state) {
  Leader3 leader;
  uint64_t id = 0;
  for (auto _ : state) {
    for (int64_t i = 0; i < state.range(0); ++i) {
      benchmark::DoNotOptimize(leader.node().ReadIndex(ReadId(++id)));
    }
    leader.Turn();
    leader.Turn();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_Reads)->Arg(1)->Arg(100);

}  // namespace
}  // namespace conclave::raft
