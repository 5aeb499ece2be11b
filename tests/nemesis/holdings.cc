#include "conclave/tests/nemesis/holdings.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace conclave::nemesis {

sim::Complaints CheckHoldings(std::vector<Holding> sorted) {
  std::sort(sorted.begin(), sorted.end(),
            [](const Holding& a, const Holding& b) { return a.from < b.from; });
  sim::Complaints complaints;
  for (size_t i = 1; i < sorted.size(); ++i) {
    const Holding& before = sorted[i - 1];
    const Holding& holding = sorted[i];
    if (holding.from <= before.until) {
      complaints.push_back(absl::StrCat("clients ", before.client, " and ", holding.client,
                                        " believed at once that they hold the lock (tokens ",
                                        before.token, " and ", holding.token, ")"));
    }
    if (holding.token <= before.token) {
      complaints.push_back(
          absl::StrCat("a lock's token went from ", before.token, " to ", holding.token));
    }
  }
  return complaints;
}

}  // namespace conclave::nemesis
