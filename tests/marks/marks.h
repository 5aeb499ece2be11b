// The coverage marks of this program (base/reached.h).
#pragma once

#include <string>
#include <vector>

namespace conclave {

struct Mark {
  std::string name;
  bool reached = false;
};
// Sorted by name; one that stands at several places is reached when one of them is.
std::vector<Mark> Marks();

}  // namespace conclave
