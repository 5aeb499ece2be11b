#include "conclave/tests/sim/auth_checker.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace conclave::sim {
namespace {

constexpr size_t kComplaintsMax = 20;
const std::string kOpenEnd(1, '\0');

// [begin, end) with an end that is behind everything.
struct Interval {
  std::string begin;
  std::string end;
  bool open = false;
};

Interval IntervalOf(const KeyPermission& range) {
  if (range.range_end == kOpenEnd) return {range.key, "", true};
  if (range.range_end.empty()) return {range.key, range.key + kOpenEnd, false};
  return {range.key, range.range_end, false};
}

// Several permissions together may cover what none of them covers alone.
bool Covered(const Interval& wanted, std::vector<Interval> given) {
  std::sort(given.begin(), given.end(),
            [](const Interval& a, const Interval& b) { return a.begin < b.begin; });
  std::string reached = wanted.begin;
  for (const Interval& each : given) {
    if (each.begin > reached) return false;
    if (each.open) return true;
    reached = std::max(reached, each.end);
    if (!wanted.open && reached >= wanted.end) return true;
  }
  return false;
}

}  // namespace

bool Allows(const AuthMoment& moment, const std::string& user,
            const std::vector<KeyPermission>& needs) {
  if (!moment.enabled) return true;
  const auto known = moment.roles_of.find(user);
  if (known == moment.roles_of.end()) return false;
  if (known->second.contains("root")) return true;
  for (const bool write : {false, true}) {
    std::vector<Interval> given;
    for (const std::string& role : known->second) {
      const auto permissions = moment.permissions_of.find(role);
      if (permissions == moment.permissions_of.end()) continue;
      for (const KeyPermission& permission : permissions->second) {
        if (write ? permission.writes : permission.reads) given.push_back(IntervalOf(permission));
      }
    }
    for (const KeyPermission& need : needs) {
      if ((write ? need.writes : need.reads) && !Covered(IntervalOf(need), given)) return false;
    }
  }
  return true;
}

Complaints CheckAuth(const AuthHistory& history, const std::vector<AuthDeed>& deeds) {
  Complaints complaints;
  for (const AuthDeed& deed : deeds) {
    // Before the first moment everybody may do everything.
    bool allowed = history.empty() || deed.begin <= history.front().from;
    for (size_t i = 0; !allowed && i < history.size(); ++i) {
      if (history[i].from > deed.end) break;
      if (i + 1 < history.size() && history[i + 1].from < deed.begin) continue;
      allowed = Allows(history[i], deed.user, deed.needs);
    }
    if (allowed || complaints.size() >= kComplaintsMax) continue;
    complaints.push_back(absl::StrCat(deed.user.empty() ? "nobody" : deed.user, " ", deed.what,
                                      " without permission"));
  }
  return complaints;
}

}  // namespace conclave::sim
