// Which of a service's instances a client connects to, if not to all. Pure.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace conclave {

// The indexes of `count` names (all, if there are fewer), in ascending order. By rendezvous
// hashing: the same key gets the same names in every process; keys spread evenly over the
// names; and a name that comes or goes changes at most one place of the subset.
std::vector<size_t> RendezvousSubset(std::string_view subset_key,
                                     std::span<const std::string_view> names, size_t count);

}  // namespace conclave
