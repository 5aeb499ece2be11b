// Roster: which backends a picking channel has, and which of them may get calls now. Pure: no gRPC,
// no threads, time is passed in.
//
//   instances (a snapshot) --serving? address? zone, subset--> members, each with a connection
//   members --ready? ejected? zone?--> candidates, with their weights of the moment
//
// A member is known by its address. While it stays, its connection, counters and ejections stay,
// whatever else of the instance changes.
//
// States follow the connection, and failing is sticky, as with gRPC's round robin: a member that
// could not be reached stays kFailing through its further attempts, until one succeeds.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "conclave/base/time.h"
#include "conclave/discovery/picking/backend.h"
#include "conclave/discovery/picking/ejection.h"
#include "conclave/discovery/picking/hash_ring.h"
#include "conclave/discovery/picking/stats.h"
#include "conclave/registry/instance.h"

namespace conclave::picking {

class Roster {
 public:
  static constexpr size_t kMembersMax = 10'000;
  static constexpr double kUnsetWeight = 100;

  struct Options {
    bool by_weight = false;  // else all weigh 1
    bool ring = false;       // whether to keep a HashRing
    std::string prefer_zone{};
    // While at least this share of the zone's members is ready, calls stay in the zone.
    int zone_ready_percent = 50;
    // So many members only, chosen by the key: with prefer_zone so many in the zone and as many
    // elsewhere, so that there is somebody to go to when the zone fails. 0: all.
    size_t subset = 0;
    std::string subset_key{};
    Duration slow_start{};
    std::optional<Outlier> outlier{};
    // If fewer than this share of the ready members is not ejected, ejections are ignored.
    int panic_percent = 50;
  };

  struct Member {
    uint64_t id = 0;  // never used twice
    Instance instance{};
    BackendState state = BackendState::kConnecting;
    std::shared_ptr<BackendLoad> load{};
    Ejection ejection{};
    std::optional<Instant> ramp_begun{};
    bool ramp_when_ready = false;
    std::shared_ptr<const Backend> view{};  // as last published
  };

  struct Change {
    std::vector<uint64_t> joined{};
    std::vector<uint64_t> left{};
  };

  explicit Roster(Options options) : options_(std::move(options)) {}

  Change SetInstances(std::span<const Instance* const> instances);
  // Unknown ids are ignored: the event was under way when the member left. Gives whether it
  // changed.
  bool SetState(uint64_t id, BackendState state, Instant now);
  // The member's calls have failed often enough. Gives whether it is out now.
  bool Eject(uint64_t id, Instant now);
  // Ends ejections that are due; true if one ended or a weight has changed by slow start.
  bool Advance(Instant now);
  // When Advance is to be called next.
  Instant NextDue() const;

  // The backends that may get calls, in the order of addresses.
  struct Candidates {
    std::vector<std::shared_ptr<const Backend>> backends{};
    std::vector<uint64_t> ids{};         // of the same
    std::vector<uint32_t> ring_index{};  // of the same, if there is a ring
    bool panic = false;                  // ejections are ignored
  };
  Candidates Choose(Instant now);
  // Of all members, ready or not; null without Options::ring.
  const std::shared_ptr<const HashRing>& ring() const { return ring_; }

  const std::map<std::string, Member>& members() const { return members_; }
  const Member* Find(uint64_t id) const;
  // Serving instances that were left out because calls cannot go to such an address.
  size_t unusable() const { return unusable_; }

 private:
  double WeightNow(const Member& member, Instant now) const;
  std::set<std::string> Select(const std::map<std::string, const Instance*>& serving) const;
  void RebuildRing();
  Member* FindMutable(uint64_t id);
  bool Ramping(const Member& member, Instant now) const {
    return member.ramp_begun.has_value() && now < *member.ramp_begun + options_.slow_start;
  }

  const Options options_;
  std::map<std::string, Member> members_;
  std::map<uint64_t, std::string> addresses_;  // of the members by id
  size_t unusable_ = 0;
  std::shared_ptr<const HashRing> ring_;
  bool had_instances_ = false;
  uint64_t next_id_ = 1;
  Instant next_ramp_{kNever};
};

}  // namespace conclave::picking
