// What the store, the leases and the watch hub cost, by Google benchmark:
//
//   build/release/bin/bench/mvcc_bench --benchmark_filter=Put
//
// Memory is the growth of the process's resident set, so each memory benchmark runs once, best
// alone.

#include <benchmark/benchmark.h>
#include <malloc.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "conclave/base/crc32c.h"
#include "conclave/base/prng.h"
#include "conclave/server/lease/lessor.h"
#include "conclave/server/mvcc/snapshot_cursor.h"
#include "conclave/server/mvcc/store.h"
#include "conclave/server/watch/watch_hub.h"

namespace conclave {
namespace {

using mvcc::KeyRange;
using mvcc::kLatest;
using mvcc::Record;
using mvcc::Store;

constexpr size_t kKeys = 1'000'000;
constexpr size_t kValueBytes = 256;

double ResidentBytes() {
  long size = 0;
  long resident = 0;
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr || std::fscanf(file, "%ld %ld", &size, &resident) != 2) std::abort();
  std::fclose(file);
  return static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

// The i-th of a million keys in an order without order, all different, 16 bytes each.
std::string Key(uint64_t i) {
  char key[17];
  const uint64_t mixed = i * 0x9e3779b97f4a7c15u;
  std::snprintf(key, sizeof(key), "%016llx", static_cast<unsigned long long>(mixed));
  return key;
}
// As a registry of services has them: long common prefixes.
std::string RegistryKey(uint64_t i) {
  return "/registry/services/service-" + std::to_string(i % 1000) + "/instance-" + Key(i);
}

void Put(Store* store, std::string_view key, std::string_view value) {
  mvcc::WriteTxn txn = store->Begin();
  txn.Put(key, value, 0);
  txn.Commit();
}

std::vector<std::string> Keys(std::string (*key)(uint64_t), size_t count) {
  std::vector<std::string> keys;
  keys.reserve(count);
  for (size_t i = 0; i < count; ++i) keys.push_back(key(i));
  return keys;
}

Store* FullStore() {
  static const std::unique_ptr<Store> store = [] {
    auto full = std::make_unique<Store>();
    const std::string value(kValueBytes, 'v');
    for (size_t i = 0; i < kKeys; ++i) Put(full.get(), Key(i), value);
    return full;
  }();
  return store.get();
}

void BM_PutDistinct(benchmark::State& state, std::string (*key)(uint64_t)) {
  const std::vector<std::string> keys = Keys(key, kKeys);
  const std::string value(kValueBytes, 'v');
  for (auto _ : state) {
    auto store = std::make_unique<Store>();
    const double before = ResidentBytes();
    for (const std::string& k : keys) Put(store.get(), k, value);
    state.PauseTiming();
    state.counters["bytes/key"] = (ResidentBytes() - before) / static_cast<double>(kKeys);
    state.counters["key_bytes"] = static_cast<double>(keys[0].size());
    store.reset();
    malloc_trim(0);
    state.ResumeTiming();
  }
  state.SetItemsProcessed(static_cast<int64_t>(kKeys) * state.iterations());
}
BENCHMARK_CAPTURE(BM_PutDistinct, random, &Key)->Unit(benchmark::kMillisecond)->Iterations(1);
BENCHMARK_CAPTURE(BM_PutDistinct, registry, &RegistryKey)
    ->Unit(benchmark::kMillisecond)
    ->Iterations(1);

void BM_Restore(benchmark::State& state) {
  std::string bytes;
  mvcc::StoreImage image;
  {
    mvcc::SnapshotCursor cursor(FullStore());
    image = cursor.image();
    while (const mvcc::RecordRef record = cursor.Next()) EncodeRecord(*record, &bytes);
  }
  for (auto _ : state) {
    const double before = ResidentBytes();
    mvcc::StoreBuilder builder(image);
    std::string_view input = bytes;
    while (!input.empty()) {
      mvcc::RecordFields fields;
      if (!DecodeRecord(&input, &fields).ok() || !builder.Add(fields).ok()) std::abort();
    }
    std::unique_ptr<Store> store = *builder.Finish();
    state.PauseTiming();
    malloc_trim(0);
    state.counters["bytes/key"] = (ResidentBytes() - before) / static_cast<double>(kKeys);
    store.reset();
    malloc_trim(0);
    state.ResumeTiming();
  }
}
BENCHMARK(BM_Restore)->Unit(benchmark::kMillisecond)->Iterations(1);

void BM_SnapshotScan(benchmark::State& state) {
  Store* store = FullStore();
  for (auto _ : state) {
    mvcc::SnapshotCursor cursor(store);
    size_t bytes = 0;
    while (const mvcc::RecordRef record = cursor.Next()) bytes += record->value().size();
    benchmark::DoNotOptimize(bytes);
  }
  state.SetItemsProcessed(static_cast<int64_t>(kKeys) * state.iterations());
}
BENCHMARK(BM_SnapshotScan)->Unit(benchmark::kMillisecond);

void BM_Get(benchmark::State& state) {
  Store* store = FullStore();
  const std::vector<std::string> keys = Keys(&Key, kKeys);
  size_t i = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(store->Get(keys[i]));
    i = (i + 7919) % kKeys;
  }
}
BENCHMARK(BM_Get);

void BM_PutExisting(benchmark::State& state) {
  Store store;
  const std::string value(kValueBytes, 'v');
  const std::vector<std::string> keys = Keys(&Key, 10'000);
  size_t i = 0;
  for (auto _ : state) {
    Put(&store, keys[i], value);
    if (++i == keys.size()) {
      i = 0;
      if (!store.Compact(store.current_revision()).ok()) std::abort();
    }
    store.CompactSlice(2);
  }
}
BENCHMARK(BM_PutExisting);

void BM_CountAll(benchmark::State& state) {
  Store* store = FullStore();
  for (auto _ : state) benchmark::DoNotOptimize(store->Count(KeyRange::All(), kLatest));
}
BENCHMARK(BM_CountAll);

void BM_CountRange(benchmark::State& state) {
  Store* store = FullStore();
  for (auto _ : state) {
    benchmark::DoNotOptimize(store->Count(KeyRange::Between("1", "e"), kLatest));
  }
}
BENCHMARK(BM_CountRange);

void BM_RangeLimitOneOfAMillion(benchmark::State& state) {
  Store* store = FullStore();
  for (auto _ : state) {
    int64_t revision = 0;
    store->ForEach(KeyRange::All(), kLatest, [&](const Record& record) {
      revision = record.mod_revision();
      return false;
    });
    benchmark::DoNotOptimize(revision + store->Count(KeyRange::All(), kLatest));
  }
}
BENCHMARK(BM_RangeLimitOneOfAMillion);

void BM_RangeThousand(benchmark::State& state) {
  Store* store = FullStore();
  const std::vector<std::string> keys = Keys(&Key, 1000);
  size_t i = 0;
  for (auto _ : state) {
    size_t bytes = 0;
    int left = 1000;
    store->ForEach(KeyRange::From(keys[i++ % 1000]), kLatest, [&](const Record& record) {
      bytes += record.value().size() + record.key().size();
      return --left > 0;
    });
    benchmark::DoNotOptimize(bytes);
  }
  state.SetItemsProcessed(1000 * state.iterations());
}
BENCHMARK(BM_RangeThousand);

void BM_HashKv(benchmark::State& state) {
  Store* store = FullStore();
  for (auto _ : state) benchmark::DoNotOptimize(store->HashKv(0)->hash);
  state.SetItemsProcessed(static_cast<int64_t>(kKeys) * state.iterations());
}
BENCHMARK(BM_HashKv)->Unit(benchmark::kMillisecond);

// A million revisions of 1000 keys: what history costs, and what it costs to free it.
void BM_CompactHistory(benchmark::State& state) {
  const std::vector<std::string> keys = Keys(&Key, 1000);
  const std::string value(kValueBytes, 'v');
  for (auto _ : state) {
    state.PauseTiming();
    malloc_trim(0);
    const double before = ResidentBytes();
    auto store = std::make_unique<Store>();
    for (size_t i = 0; i < kKeys; ++i) Put(store.get(), keys[i * 7919 % 1000], value);
    state.counters["bytes/revision"] = (ResidentBytes() - before) / static_cast<double>(kKeys);
    if (!store->Compact(store->current_revision()).ok()) std::abort();
    state.ResumeTiming();
    while (store->CompactSlice(1000)) {
    }
    state.PauseTiming();
    malloc_trim(0);
    state.counters["bytes_left"] = ResidentBytes() - before;
    store.reset();
    state.ResumeTiming();
  }
  state.SetItemsProcessed(static_cast<int64_t>(kKeys) * state.iterations());
}
BENCHMARK(BM_CompactHistory)->Unit(benchmark::kMillisecond)->Iterations(1);

// `range(0)` watchers of one key on 10 streams; an item is one event handed to one watcher.
void BM_WatchFanOut(benchmark::State& state) {
  Store store;
  watch::WatchHub hub(&store);
  constexpr watch::StreamId kStreams = 10;
  for (watch::StreamId id = 1; id <= kStreams; ++id) hub.OpenStream(id);
  for (int64_t i = 0; i < state.range(0); ++i) {
    hub.Create(1 + static_cast<watch::StreamId>(i) % kStreams, {.key = "key"}, Instant{});
  }
  const std::string value(kValueBytes, 'v');
  std::vector<watch::StreamOutput> output;
  for (auto _ : state) {
    Put(&store, "key", value);
    hub.Notify();
    hub.TakeOutput(&output);
    for (const watch::StreamOutput& stream : output) {
      size_t written = 0;
      for (const watch::WatchResponse& response : stream.responses) {
        written += response.charge;
        if (response.events != nullptr) benchmark::DoNotOptimize(response.events->Encoded().data());
      }
      hub.Written(stream.stream, written);
    }
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_WatchFanOut)->Arg(1)->Arg(1000);

// One write where 100,000 others watch other keys and ranges.
void BM_WatchManyOthers(benchmark::State& state) {
  Store store;
  watch::WatchHub hub(&store);
  hub.OpenStream(1);
  for (int i = 0; i < 50'000; ++i) {
    hub.Create(1, {.key = "single" + std::to_string(i)}, Instant{});
    const std::string prefix = "prefix" + std::to_string(i) + "/";
    hub.Create(1, {.key = prefix, .range_end = mvcc::PrefixEnd(prefix)}, Instant{});
  }
  std::vector<watch::StreamOutput> output;
  hub.TakeOutput(&output);
  for (const auto& response : output[0].responses) hub.Written(1, response.charge);
  int i = 0;
  for (auto _ : state) {
    Put(&store, "prefix" + std::to_string(i++ % 50'000) + "/key", "v");
    hub.Notify();
    hub.TakeOutput(&output);
    for (const auto& response : output[0].responses) hub.Written(1, response.charge);
  }
}
BENCHMARK(BM_WatchManyOthers);

void BM_WatchCatchUp(benchmark::State& state) {
  Store* store = FullStore();
  std::vector<watch::StreamOutput> output;
  for (auto _ : state) {
    watch::WatchHub hub(store);
    hub.OpenStream(1);
    hub.Create(1, {.key = "a", .range_end = "b", .start_revision = 2}, Instant{});
    while (hub.CatchUp(10'000)) {
      hub.TakeOutput(&output);
      for (const auto& stream : output) {
        for (const auto& response : stream.responses) hub.Written(1, response.charge);
      }
    }
  }
  state.SetItemsProcessed(static_cast<int64_t>(kKeys) * state.iterations());
}
BENCHMARK(BM_WatchCatchUp)->Unit(benchmark::kMillisecond);

// A million leases, 100,000 of which end at once.
void BM_LeaseExpiry(benchmark::State& state) {
  constexpr lease::LeaseId kLeases = 1'000'000;
  constexpr lease::LeaseId kEnding = 100'000;
  for (auto _ : state) {
    state.PauseTiming();
    malloc_trim(0);
    const double before = ResidentBytes();
    auto lessor = std::make_unique<lease::Lessor>();
    const Instant now{std::chrono::seconds(1)};
    lessor->Promote(now, Duration::zero());
    for (lease::LeaseId id = 1; id <= kLeases; ++id) {
      if (!lessor->Grant(id * 7919 % 1'000'003 + 1, id <= kEnding ? 10 : 1000, now).ok())
        std::abort();
    }
    state.counters["bytes/lease"] = (ResidentBytes() - before) / static_cast<double>(kLeases);
    state.ResumeTiming();
    for (;;) {
      const std::vector<lease::LeaseId> expired =
          lessor->Expired(now + std::chrono::seconds(10), 1000);
      if (expired.empty()) break;
      for (const lease::LeaseId id : expired) {
        if (!lessor->Revoke(id).ok()) std::abort();
      }
    }
    state.PauseTiming();
    lessor.reset();
    state.ResumeTiming();
  }
}
BENCHMARK(BM_LeaseExpiry)->Unit(benchmark::kMillisecond)->Iterations(3);

void BM_LeasePromoteAndExport(benchmark::State& state) {
  lease::Lessor lessor;
  const Instant now{std::chrono::seconds(1)};
  for (lease::LeaseId id = 1; id <= 1'000'000; ++id) {
    if (!lessor.Grant(id, 10 + id % 1000, now).ok()) std::abort();
  }
  for (auto _ : state) {
    if (state.range(0) == 0) {
      lessor.Promote(now, Duration::zero());
    } else {
      benchmark::DoNotOptimize(lessor.Export().leases.size());
    }
  }
}
BENCHMARK(BM_LeasePromoteAndExport)
    ->ArgName("export")
    ->Arg(0)
    ->Arg(1)
    ->Unit(benchmark::kMillisecond);

void BM_LeaseRenew(benchmark::State& state) {
  lease::Lessor lessor;
  Instant now{std::chrono::seconds(1)};
  lessor.Promote(now, Duration::zero());
  for (lease::LeaseId id = 1; id <= 1'000'000; ++id) {
    if (!lessor.Grant(id, 60, now).ok()) std::abort();
  }
  lease::LeaseId id = 0;
  for (auto _ : state) {
    id = (id + 7919) % 1'000'000;
    now += std::chrono::microseconds(1);
    benchmark::DoNotOptimize(lessor.Renew(id + 1, now).ttl_seconds);
  }
}
BENCHMARK(BM_LeaseRenew);

void BM_Crc32c(benchmark::State& state) {
  const std::string bytes(static_cast<size_t>(state.range(0)), 'x');
  for (auto _ : state) benchmark::DoNotOptimize(Crc32c(bytes));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_Crc32c)->Arg(64)->Arg(300)->Arg(4096)->Arg(1 << 20);

}  // namespace
}  // namespace conclave
