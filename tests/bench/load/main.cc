// conclave-load: load for any server that speaks the etcd v3 protocol. Prints one line of JSON.
//
//   conclave-load OPERATION --endpoints HOST:PORT[,...] [--name value ...]
// Operations: put, range, txn-put, keep-alive, watch, count, range-all, wait. See Usage() for the
// options.

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "conclave/api/rpc.pb.h"
#include "conclave/base/prng.h"
#include "conclave/tests/bench/load/stream_load.h"
#include "conclave/tests/bench/load/unary_load.h"

namespace conclave::bench {
namespace {

constexpr char kUsage[] =
    "usage: conclave-load OPERATION --endpoints HOST:PORT[,HOST:PORT] [options]\n"
    "  put         puts of --value-bytes over --keys distinct keys (1: one key; in random order)\n"
    "  range       linearizable reads of one key\n"
    "  txn-put     transactions of --ops puts\n"
    "  keep-alive  lease renewals, one stream a client\n"
    "  watch       --watchers watchers of one key on --streams streams, and a client that puts it\n"
    "  count       ranges over all keys with limit 1 (which count all)\n"
    "  range-all   ranges of --limit keys from the first one\n"
    "  wait        until a linearizable read succeeds, at most --seconds\n"
    "options: --clients N (1) --connections N (= clients) --total N | --seconds S (5) --rate R (0: "
    "closed\n"
    "  loop) --keys N (1) --value-bytes N (256) --ops N (4) --limit N (100000) --watchers N "
    "--streams N\n";

class Options {
 public:
  Options(int argc, char** argv) {
    for (int i = 2; i < argc; i += 2) {
      const std::string name = argv[i];
      if (name.rfind("--", 0) != 0 || i + 1 >= argc) {
        std::cerr << "conclave-load: " << name << " needs a value\n" << kUsage;
        std::exit(2);
      }
      values_[name.substr(2)] = argv[i + 1];
    }
  }
  std::string Text(const std::string& name, const std::string& fallback) const {
    auto found = values_.find(name);
    return found == values_.end() ? fallback : found->second;
  }
  double Number(const std::string& name, double fallback) const {
    auto found = values_.find(name);
    if (found == values_.end()) return fallback;
    char* end = nullptr;
    const double value = std::strtod(found->second.c_str(), &end);
    if (end == found->second.c_str() || *end != '\0') {
      std::cerr << "conclave-load: --" << name << " is not a number: " << found->second << "\n";
      std::exit(2);
    }
    return value;
  }
  int Count(const std::string& name, int fallback) const {
    return static_cast<int>(Number(name, fallback));
  }

 private:
  std::map<std::string, std::string> values_;
};

std::vector<std::string> Split(const std::string& list) {
  std::vector<std::string> parts;
  size_t start = 0;
  while (start <= list.size()) {
    const size_t comma = std::min(list.find(',', start), list.size());
    if (comma > start) parts.push_back(list.substr(start, comma - start));
    start = comma + 1;
  }
  return parts;
}

std::string Key(uint64_t number) {
  std::string digits = std::to_string(number);
  return "bench/key/" + std::string(10 - std::min<size_t>(digits.size(), 10), '0') + digits;
}

// The n-th of `keys` distinct keys in a scattered order that meets each key once in `keys` calls.
uint64_t Scatter(uint64_t n, uint64_t keys) {
  constexpr uint64_t kPrime = 2654435761;  // shares no factor with the counts that are used here
  return static_cast<uint64_t>(static_cast<unsigned __int128>(n) * kPrime % keys);
}

UnaryLoad MakeUnary(const std::string& operation, const Options& options) {
  UnaryLoad load;
  load.operation = operation;
  load.endpoints = Split(options.Text("endpoints", ""));
  load.clients = options.Count("clients", 1);
  load.connections = options.Count("connections", load.clients);
  load.total = static_cast<uint64_t>(options.Number("total", 0));
  load.seconds = options.Number("seconds", load.total > 0 ? 0 : 5);
  load.rate = options.Number("rate", 0);
  const uint64_t keys = static_cast<uint64_t>(options.Number("keys", 1));
  const std::string value(static_cast<size_t>(options.Number("value-bytes", 256)), 'v');
  if (operation == "put") {
    load.method = "/etcdserverpb.KV/Put";
    load.request = [keys, value](uint64_t n) {
      etcdserverpb::PutRequest put;
      put.set_key(Key(Scatter(n, keys)));
      put.set_value(value);
      return put.SerializeAsString();
    };
  } else if (operation == "txn-put") {
    load.method = "/etcdserverpb.KV/Txn";
    const int ops = options.Count("ops", 4);
    load.request = [keys, value, ops](uint64_t n) {
      etcdserverpb::TxnRequest txn;
      for (int i = 0; i < ops; ++i) {
        auto* put = txn.add_success()->mutable_request_put();
        put->set_key(Key(Scatter(n, keys)) + "/" + std::to_string(i));
        put->set_value(value);
      }
      return txn.SerializeAsString();
    };
  } else {
    load.method = "/etcdserverpb.KV/Range";
    etcdserverpb::RangeRequest range;
    range.set_key(Key(0));
    if (operation == "count" || operation == "range-all") {
      range.set_key(std::string(1, '\0'));
      range.set_range_end(std::string(1, '\0'));
      range.set_limit(operation == "count" ? 1 : options.Count("limit", 100000));
    }
    load.request = [message = range.SerializeAsString()](uint64_t) { return message; };
  }
  return load;
}

// Polls, because a server that is still starting refuses connections: 5 ms between tries.
Report Wait(const Options& options) {
  const auto started = std::chrono::steady_clock::now();
  Report report;
  while (true) {
    UnaryLoad probe = MakeUnary("range", options);
    probe.total = 1;
    probe.seconds = 0;
    report = Run(probe);
    report.operation = "wait";
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - started;
    report.seconds = passed.count();
    if (report.errors == 0 || passed.count() > options.Number("seconds", 60)) return report;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

int Main(int argc, char** argv) {
  const std::string operation = argc > 1 ? argv[1] : "";
  const Options options(argc, argv);
  const std::vector<std::string> endpoints = Split(options.Text("endpoints", ""));
  if (endpoints.empty()) {
    std::cerr << kUsage;
    return 2;
  }
  const int clients = options.Count("clients", 1);
  const double seconds = options.Number("seconds", 5);
  Report report;
  if (operation == "put" || operation == "txn-put" || operation == "range" ||
      operation == "count" || operation == "range-all") {
    report = Run(MakeUnary(operation, options));
  } else if (operation == "keep-alive") {
    Connections connections(endpoints, options.Count("connections", clients));
    report = RunKeepAlive(clients, seconds, &connections);
  } else if (operation == "watch") {
    const int streams = options.Count("streams", 10);
    Connections watch_connections(endpoints, streams + 1);
    report = RunWatch(options.Count("watchers", 1000), streams, seconds, &watch_connections);
  } else if (operation == "wait") {
    report = Wait(options);
  } else {
    std::cerr << "conclave-load: unknown operation " << operation << "\n" << kUsage;
    return 2;
  }
  Print(report);
  return report.errors == 0 ? 0 : 1;
}

}  // namespace
}  // namespace conclave::bench

int main(int argc, char** argv) { return conclave::bench::Main(argc, argv); }
