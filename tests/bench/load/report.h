// What a run of load found, printed as one line of JSON for tests/bench/bench.py.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "conclave/tests/bench/load/histogram.h"

namespace conclave::bench {

struct Report {
  std::string operation;
  double seconds = 0;       // wall time of the measured part
  uint64_t operations = 0;  // finished well; for watch: events received
  uint64_t errors = 0;
  std::string first_error;
  Histogram latency;
};

inline void Print(const Report& report) {
  std::string error = report.first_error;
  for (char& c : error) {
    if (c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20) c = '\'';
  }
  std::printf(
      "{\"operation\":\"%s\",\"seconds\":%.6f,\"operations\":%llu,\"errors\":%llu,"
      "\"first_error\":\"%s\",\"rate\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n",
      report.operation.c_str(), report.seconds, static_cast<unsigned long long>(report.operations),
      static_cast<unsigned long long>(report.errors), error.c_str(),
      static_cast<double>(report.operations) / report.seconds,
      static_cast<double>(report.latency.Quantile(0.5)) / 1e3,
      static_cast<double>(report.latency.Quantile(0.99)) / 1e3,
      static_cast<double>(report.latency.max()) / 1e3);
}

}  // namespace conclave::bench
