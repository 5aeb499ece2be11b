#include "conclave/discovery/subset.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "conclave/discovery/stable_hash.h"

namespace conclave {

std::vector<size_t> RendezvousSubset(std::string_view subset_key,
                                     std::span<const std::string_view> names, size_t count) {
  std::vector<std::pair<uint64_t, size_t>> ranks;
  ranks.reserve(names.size());
  const uint64_t seed = StableHash(subset_key);
  for (size_t i = 0; i < names.size(); ++i) ranks.emplace_back(StableHash(names[i], seed), i);
  if (ranks.size() > count) {
    // Ties, which do not happen, would go by the name, never by the order of the input.
    const auto by_rank = [&names](const auto& a, const auto& b) {
      return a.first != b.first ? a.first < b.first : names[a.second] < names[b.second];
    };
    std::nth_element(ranks.begin(), ranks.begin() + static_cast<ptrdiff_t>(count), ranks.end(),
                     by_rank);
    ranks.resize(count);
  }
  std::vector<size_t> chosen;
  chosen.reserve(ranks.size());
  for (const auto& [rank, index] : ranks) chosen.push_back(index);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace conclave
