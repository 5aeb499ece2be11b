// The journal of systemd as an output of the log, by its native protocol: a datagram of fields.
#pragma once

#include <spdlog/sinks/sink.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace conclave::app {

inline constexpr char kJournalSocket[] = "/run/systemd/journal/socket";

// A sink whose lines become entries: MESSAGE is the line, PRIORITY its level as syslog numbers it,
// SYSLOG_IDENTIFIER the program. A line that is too long for a datagram goes as a sealed file in
// memory. What the journal does not take, because it is being restarted, goes to stderr instead.
// Thread-safe.
//   Unavailable  there is no journal at `socket_path`
absl::StatusOr<spdlog::sink_ptr> OpenJournal(const std::string& socket_path);

}  // namespace conclave::app
