// In every test: with CONCLAVE_MARKS_FILE set, its process writes the names of the coverage marks
// that it has reached into that file when it ends, for marks_test.py.
#include <cstdlib>
#include <fstream>

#include "conclave/tests/marks/marks.h"

namespace conclave {
namespace {

void Report() {
  const char* file = std::getenv("CONCLAVE_MARKS_FILE");
  if (file == nullptr) return;
  std::ofstream names(file);
  for (const Mark& mark : Marks()) {
    if (mark.reached) names << mark.name << '\n';
  }
}

[[maybe_unused]] const int registered = std::atexit(Report);

}  // namespace
}  // namespace conclave
