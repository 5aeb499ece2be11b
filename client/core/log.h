// Where this library's log lines go: to a function of the user's, or to stderr.
#pragma once

#include <functional>
#include <string_view>

namespace conclave {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

std::string_view LogLevelName(LogLevel level);  // "debug", "info", "warning", "error"

// Takes one line, without a newline at its end; the text is valid during the call only. Called on
// any thread, also on several at once, and often on one that must not be held up: it does not block
// for long, does not throw and does not call this library.
using LogSink = std::function<void(LogLevel level, std::string_view line)>;

// The sink of those who name none: warnings and errors to stderr, one line each.
void LogToStderr(LogLevel level, std::string_view line);

}  // namespace conclave
