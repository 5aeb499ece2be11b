// Client: one client of a Cluster, that does one thing after the other until an answer stays out,
// and keeps what the store must look like by what it was told.
//
// Of the call without an answer nobody knows; so there are two such stores then.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/tests/crash/cluster.h"

namespace conclave::crash {

// What a store holds, as clients see it.
struct Contents {
  struct Key {
    std::string value;
    int64_t create_revision = 0;
    int64_t mod_revision = 0;
    int64_t version = 0;
    int64_t lease = 0;
    friend bool operator==(const Key&, const Key&) = default;
  };
  int64_t revision = 1;
  std::map<std::string, Key> keys;
  std::map<int64_t, int64_t> leases;    // TTLs as granted
  std::map<std::string, bool> members;  // those that were added, by peer URL: a learner?

  friend bool operator==(const Contents&, const Contents&) = default;
};
std::string Describe(const Contents& contents);

class Client {
 public:
  // Talks to member `through`.
  Client(Cluster* cluster, size_t through) : cluster_(cluster), through_(through) {}

  // An answer stayed out.
  bool in_doubt() const { return in_doubt_; }
  // Goes on with another member; what was in doubt stays so.
  void MoveTo(size_t member);

  void Put(const std::string& key, const std::string& value, int64_t lease = 0);
  void Delete(const std::string& key);
  // If `key` exists: both get the value; else nothing.
  void PutBothIf(const std::string& key, const std::string& other, const std::string& value);
  void Grant(int64_t lease, int64_t ttl_seconds);
  void Revoke(int64_t lease);
  void Compact(int64_t revision);
  // Gives its id.
  uint64_t AddLearner(const std::string& url);
  void UpdateMember(uint64_t id, const std::string& from, const std::string& to);
  void RemoveMember(uint64_t id, const std::string& url);
  void Promote(uint64_t id, const std::string& url);
  // Is there already.
  void Know(const std::string& url, bool is_learner) {
    for (Contents& contents : possible_) contents.members[url] = is_learner;
  }

  const std::vector<Contents>& possible() const { return possible_; }
  int64_t revision() const { return possible_.front().revision; }
  int64_t compacted() const { return compacted_; }  // acknowledged
  // What was wrong with answers; empty: nothing.
  const std::string& complaint() const { return complaint_; }

 private:
  using Effect = std::function<void(Contents&)>;
  // The answer, if the call was acknowledged.
  std::optional<std::string> Do(node::Method method, const std::string& request,
                                const Effect& effect);

  Cluster* const cluster_;
  size_t through_;
  bool in_doubt_ = false;
  std::vector<Contents> possible_{Contents()};
  int64_t compacted_ = 0;
  std::string complaint_;
};

// What member `member` says that the store holds; an error: it says it not.
absl::StatusOr<Contents> Read(Cluster& cluster, size_t member, size_t founders);
// True if it refuses to read what was compacted.
bool IsCompactedAt(Cluster& cluster, size_t member, int64_t revision);

}  // namespace conclave::crash
