// Rejections: log lines about connections that were turned away, so many at most.
//
// Whoever can reach a port can make it reject; the log must not be theirs to fill. Thread: one at a
// time. Limits: kRejectionsLoggedMax lines per kRejectionPeriod; the next line says how many it
// stands for.
#pragma once

#include <cstdint>
#include <string>

#include "conclave/base/time.h"
#include "conclave/server/tls/policy.h"

namespace conclave::tls {

inline constexpr int kRejectionsLoggedMax = 10;
inline constexpr Duration kRejectionPeriod = std::chrono::seconds(10);

class Rejections {
 public:
  // `message` is the line: "rejected connection on client endpoint".
  Rejections(std::string message, Policy::Log log);

  void Add(Instant now, const std::string& remote, const std::string& server_name,
           const std::string& error);

 private:
  const std::string message_;
  const Policy::Log log_;
  Instant period_began_{};
  int logged_ = 0;
  uint64_t left_out_ = 0;
};

// "127.0.0.1:4711" of whom the socket is connected to; "@" for an unnamed unix socket.
std::string RemoteAddress(int fd);

}  // namespace conclave::tls
