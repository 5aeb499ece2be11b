// The runnable examples of the pages in docs/, as extract.py finds them.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "conclave/client/client.h"

namespace conclave::docs {

struct Example {
  std::string page;
  std::string name;
  absl::Status (*run)(const Client& client);
};

std::vector<Example>& Examples();

inline bool Register(const char* page, const char* name,
                     absl::Status (*run)(const Client& client)) {
  Examples().push_back({page, name, run});
  return true;
}

}  // namespace conclave::docs
