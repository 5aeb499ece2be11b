#include "conclave/server/app/member_start.h"

#include <poll.h>

#include <chrono>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "conclave/base/status.h"
#include "conclave/server/app/version.h"
#include "conclave/server/node/directory.h"
#include "conclave/server/node/identity.h"
#include "conclave/server/rpc/peer_question.h"
#include "conclave/server/rpc/transport.h"
#include "conclave/server/wal/log.h"

namespace conclave::app {
namespace {

constexpr Duration kAskTimeout = std::chrono::seconds(2);
// Founders start at the same time and mostly find nobody there yet.
constexpr Duration kAskFounderTimeout = std::chrono::milliseconds(500);
// A member may be asked a moment before it hears that this one was added.
constexpr Duration kAddedPatience = std::chrono::seconds(5);
constexpr int kAskAgainAfterMs = 200;
// The others may be starting as well.
constexpr Duration kRepairPatience = std::chrono::seconds(30);

std::vector<std::string> Texts(const std::vector<Url>& urls) {
  std::vector<std::string> texts;
  for (const Url& url : urls) texts.push_back(url.Text());
  return texts;
}

std::string Hex(raft::NodeId id) { return absl::StrCat(absl::Hex(id.value())); }

absl::Status Refused(const std::string& why) { return absl::FailedPreconditionError(why); }

absl::StatusOr<node::InitialCluster> Founders(const Config& config) {
  std::vector<node::FoundingMember> founders;
  for (const auto& [name, urls] : config.initial_cluster) {
    founders.push_back({name, Texts(urls)});
  }
  return node::FoundCluster(founders, config.initial_cluster_token);
}

std::vector<std::vector<std::string>> Others(const Config& config) {
  std::vector<std::vector<std::string>> others;
  for (const auto& [name, urls] : config.initial_cluster) {
    if (name != config.name) others.push_back(Texts(urls));
  }
  return others;
}

absl::StatusOr<node::Directory> Ask(const std::vector<std::string>& urls, tls::Policy* peer_tls,
                                    Duration timeout) {
  CONCLAVE_ASSIGN_OR_RETURN(const std::string bytes, rpc::AskForDirectory(urls, peer_tls, timeout));
  return node::DecodeDirectory(bytes);
}

const apply::Member* FindById(const node::Directory& directory, raft::NodeId id) {
  for (const apply::Member& member : directory.members) {
    if (member.id == id.value()) return &member;
  }
  return nullptr;
}

// The cluster's list, from the first member that has this one in it.
absl::StatusOr<node::Directory> AskUntilKnown(const Config& config, tls::Policy* peer_tls,
                                              const std::optional<raft::NodeId>& id) {
  const std::vector<std::string> self = Texts(config.initial_advertise_peer_urls);
  const Instant until = rpc::Now() + kAddedPatience;
  absl::Status last = absl::UnavailableError("--initial-cluster names no other member");
  for (;;) {
    bool answered = false;
    for (const std::vector<std::string>& urls : Others(config)) {
      auto directory = Ask(urls, peer_tls, kAskTimeout);
      if (!directory.ok()) {
        if (!answered) last = directory.status();
        continue;
      }
      answered = true;
      if (id.has_value() ? FindById(*directory, *id) != nullptr
                         : directory->FindByUrls(self) != nullptr) {
        return directory;
      }
      last = Refused(absl::StrCat("the cluster has no member with the peer URLs ",
                                  absl::StrJoin(self, ","), "; add it first: etcdctl member add ",
                                  config.name, " --peer-urls=", absl::StrJoin(self, ",")));
    }
    if (!answered || rpc::Now() >= until) break;
    (void)poll(nullptr, 0, kAskAgainAfterMs);  // nobody tells us when they hear of it
  }
  return absl::Status(last.code(), absl::StrCat("--initial-cluster-state=existing: cannot join: ",
                                                std::string(last.message())));
}

// "3.6.0" -> 3006; 0 if it is none.
int MinorOf(std::string_view version) {
  const std::vector<std::string> parts = absl::StrSplit(std::string(version), '.');
  int major = 0;
  int minor = 0;
  if (parts.size() < 2 || !absl::SimpleAtoi(parts[0], &major) ||
      !absl::SimpleAtoi(parts[1], &minor)) {
    return 0;
  }
  return major * 1000 + minor;
}

std::vector<node::PeerAddress> OthersIn(const node::Directory& directory, raft::NodeId self) {
  std::vector<node::PeerAddress> others;
  for (const apply::Member& member : directory.members) {
    if (raft::NodeId(member.id) == self) continue;
    others.push_back({raft::NodeId(member.id), member.peer_urls});
  }
  return others;
}

absl::StatusOr<MemberStart> Join(const Config& config, tls::Policy* peer_tls,
                                 const std::optional<node::Identity>& known) {
  std::optional<raft::NodeId> id;
  if (known.has_value()) id = known->member_id;
  CONCLAVE_ASSIGN_OR_RETURN(const node::Directory directory, AskUntilKnown(config, peer_tls, id));
  const apply::Member* self = id.has_value()
                                  ? FindById(directory, *id)
                                  : directory.FindByUrls(Texts(config.initial_advertise_peer_urls));
  MemberStart start;
  start.id = raft::NodeId(self->id);
  start.cluster_id = directory.cluster_id;
  if (MinorOf(directory.cluster_version) > MinorOf(kProtocolVersion)) {
    return Refused(absl::StrCat("the cluster speaks version ", directory.cluster_version,
                                ", this program only ", std::string(kProtocolVersion)));
  }
  // Whoever has a vote has published its name before. With its memory gone it must not come back.
  if (!known.has_value() && !self->name.empty()) {
    return Refused(absl::StrCat(
        "member ", Hex(start.id), " has already been bootstrapped, but ", config.data_dir,
        " holds no member: its log is lost. Remove it and add a new one: etcdctl member remove ",
        Hex(start.id)));
  }
  start.joining = OthersIn(directory, start.id);
  return start;
}

// Whether one of the other founders knows that this one has been there before.
absl::Status RefuseSecondFounding(const Config& config, tls::Policy* peer_tls,
                                  const node::InitialCluster& cluster, raft::NodeId self) {
  for (const std::vector<std::string>& urls : Others(config)) {
    const auto directory = Ask(urls, peer_tls, kAskFounderTimeout);
    if (!directory.ok() || directory->cluster_id != cluster.cluster_id) continue;
    const apply::Member* member = FindById(*directory, self);
    if (member != nullptr && member->client_urls.empty()) continue;
    return Refused(absl::StrCat(
        "member ", Hex(self), " has already been bootstrapped, but ", config.data_dir,
        " holds no member: its log is lost",
        member == nullptr ? ", and the cluster has removed it" : "",
        ". Have a new member take its place: etcdctl member remove and add, then start it with "
        "--initial-cluster-state=existing"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<node::PeerAddress>> AskOthers(const Config& config,
                                                         tls::Policy* peer_tls, raft::NodeId self) {
  if (Others(config).empty()) return std::vector<node::PeerAddress>();
  const Instant until = rpc::Now() + kRepairPatience;
  for (;;) {
    const auto directory = AskUntilKnown(config, peer_tls, self);
    if (directory.ok()) return OthersIn(*directory, self);
    if (rpc::Now() >= until) return directory.status();
    (void)poll(nullptr, 0, kAskAgainAfterMs);
  }
}

absl::StatusOr<MemberStart> DecideStart(env::Disk& disk, const Config& config,
                                        tls::Policy* peer_tls) {
  const auto identity = node::ReadIdentity(disk);
  CONCLAVE_ASSIGN_OR_RETURN(const bool knows_none, node::KnowsNoCluster(disk));
  CONCLAVE_ASSIGN_OR_RETURN(const bool has_log, wal::Log::Exists(disk));
  // A damaged one says nothing; log and snapshots know whose they are.
  const bool known = identity.ok() && identity->has_value();
  MemberStart start;
  if (known) {
    start.id = (*identity)->member_id;
    start.cluster_id = (*identity)->cluster_id;
    if (!knows_none || !has_log) return start;  // without a log it is refused by its disk
  }
  CONCLAVE_RETURN_IF_ERROR(CheckInitialCluster(config));
  if (known) return Join(config, peer_tls, *identity);
  if (config.initial_cluster_existing && knows_none) return Join(config, peer_tls, std::nullopt);
  CONCLAVE_ASSIGN_OR_RETURN(node::InitialCluster founders, Founders(config));
  start.id = founders.Find(config.name)->id;
  start.cluster_id = founders.cluster_id;
  if (config.initial_cluster_existing) return start;
  if (knows_none && config.initial_cluster.size() > 1) {
    CONCLAVE_RETURN_IF_ERROR(RefuseSecondFounding(config, peer_tls, founders, start.id));
  }
  start.founders = std::move(founders);
  return start;
}

}  // namespace conclave::app
