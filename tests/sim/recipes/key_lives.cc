#include "conclave/tests/sim/recipes/key_lives.h"

#include <charconv>
#include <map>

#include "absl/strings/str_cat.h"

namespace conclave::sim {

std::string Seconds(Instant at) {
  if (at == kNever) return "never";
  return absl::StrCat(std::chrono::duration<double>(at.time_since_epoch()).count(), " s");
}

std::vector<KeyLife> LivesUnder(const TrueHistory& truth, const std::string& prefix) {
  std::vector<KeyLife> lives;
  std::map<std::string, size_t> live;
  for (const TrueRevision& revision : truth) {
    for (const Write& write : revision.writes) {
      if (!write.key.starts_with(prefix)) continue;
      const auto known = live.find(write.key);
      if (write.tombstone) {
        if (known == live.end()) continue;
        lives[known->second].deleted = revision.revision;
        lives[known->second].until = revision.applied;
        live.erase(known);
      } else if (known == live.end()) {
        live[write.key] = lives.size();
        lives.push_back({write.key, write.value, revision.revision, write.lease, write.lease,
                         revision.applied});
      } else {
        KeyLife& life = lives[known->second];
        life.last_lease = write.lease;
        if (life.rewritten == 0) {
          life.rewritten = revision.revision;
          life.rewritten_at = revision.applied;
        }
      }
    }
  }
  return lives;
}

int64_t Number(const std::string& text) {
  int64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

}  // namespace conclave::sim
