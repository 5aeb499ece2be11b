#include "conclave/tests/marks/marks.h"

#include <map>

#include "conclave/base/reached.h"

// The linker's names for the section's bounds. Weak: there may be no mark at all.
extern "C" {
extern conclave::ReachedMark __start_conclave_marks[] __attribute__((weak));
extern conclave::ReachedMark __stop_conclave_marks[] __attribute__((weak));
}

namespace conclave {

std::vector<Mark> Marks() {
  std::map<std::string, bool> reached;
  for (const ReachedMark* mark = __start_conclave_marks; mark != __stop_conclave_marks; ++mark) {
    reached[mark->name] |= mark->reached.load(std::memory_order_relaxed);
  }
  std::vector<Mark> marks;
  for (const auto& [name, was] : reached) marks.push_back({name, was});
  return marks;
}

}  // namespace conclave
