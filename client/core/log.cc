#include "conclave/client/core/log.h"

#include <cstdio>
#include <string>

namespace conclave {

std::string_view LogLevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "unknown";
}

void LogToStderr(LogLevel level, std::string_view line) {
  if (level < LogLevel::kWarning) return;
  std::string text = "conclave: ";
  text.append(LogLevelName(level)).append(": ").append(line).append("\n");
  std::fwrite(text.data(), 1, text.size(), stderr);  // in one piece: lines of threads do not mix
}

}  // namespace conclave
