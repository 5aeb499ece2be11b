#include "conclave/client/core/name_space.h"

#include "conclave/client/core/types.h"

namespace conclave {
namespace {

constexpr std::string_view kEndOfStore("\0", 1);

}  // namespace

NameSpace::NameSpace(std::string_view prefix) : prefix_(prefix), past_(Prefix(prefix).end) {}

std::string NameSpace::Key(std::string_view key) const {
  std::string whole;
  whole.reserve(prefix_.size() + key.size());
  whole.append(prefix_).append(key);
  return whole;
}

std::string NameSpace::End(std::string_view end) const {
  if (prefix_.empty() || end.empty()) return std::string(end);
  return end == kEndOfStore ? past_ : Key(end);
}

bool NameSpace::Strip(std::string& key) const {
  if (prefix_.empty()) return true;
  if (key.size() <= prefix_.size() || !key.starts_with(prefix_)) return false;
  key.erase(0, prefix_.size());
  return true;
}

}  // namespace conclave
