#include "conclave/server/app/join_watch.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "conclave/server/node/directory.h"
#include "conclave/server/rpc/peer_question.h"
#include "conclave/server/rpc/transport.h"

namespace conclave::app {
namespace {

constexpr Duration kAskTimeout = std::chrono::seconds(1);

std::string Hex(raft::NodeId id) { return absl::StrCat(absl::Hex(id.value())); }

}  // namespace

JoinWatch::JoinWatch(Options options) : options_(std::move(options)) {
  thread_ = std::thread([this] { Run(); });
}

JoinWatch::~JoinWatch() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
  }
  ending_changed_.notify_one();
  thread_.join();
}

bool JoinWatch::Wait(Duration duration) {
  std::unique_lock lock(mutex_);
  return ending_changed_.wait_for(lock, duration, [this] { return ending_; });
}

void JoinWatch::Run() {
  Instant heard = rpc::Now();
  int denials = 0;  // one behind the other
  while (!Wait(kAskInterval) && !options_.joined()) {
    switch (AskAll()) {
      case Answer::kMember:
        heard = rpc::Now();
        denials = 0;
        options_.met(options_.others);
        break;
      case Answer::kStranger:
        heard = rpc::Now();
        if (++denials < kDenialsMax) break;
        return options_.give_up(absl::FailedPreconditionError(
            absl::StrCat("member ", Hex(options_.self),
                         " was removed from the cluster before it had joined it: add a new one, "
                         "and start that with an empty --data-dir")));
      case Answer::kNone:
        if (rpc::Now() - heard < kPatience) break;
        return options_.give_up(absl::UnavailableError(absl::StrCat(
            "member ", Hex(options_.self),
            " cannot join: no member of the cluster has answered "
            "for ",
            absl::FormatDuration(absl::Nanoseconds(kPatience.count())),
            "; start it again with an --initial-cluster that names those that are left")));
    }
  }
}

// The first answer that has this member in it counts: others may not have heard of it yet.
JoinWatch::Answer JoinWatch::AskAll() {
  std::vector<std::vector<std::string>> all;
  for (const node::PeerAddress& other : options_.others) all.push_back(other.peer_urls);
  for (const std::vector<std::string>& urls : options_.initial) {
    if (std::find(all.begin(), all.end(), urls) == all.end()) all.push_back(urls);
  }
  Answer best = Answer::kNone;
  for (const std::vector<std::string>& urls : all) {
    if (Wait(Duration::zero())) return Answer::kMember;  // it ends: nothing is to be decided
    const Answer answer = Ask(urls);
    if (answer == Answer::kMember) return answer;
    if (answer == Answer::kStranger) best = answer;
  }
  return best;
}

JoinWatch::Answer JoinWatch::Ask(const std::vector<std::string>& urls) {
  const auto bytes = rpc::AskForDirectory(urls, options_.peer_tls, kAskTimeout);
  if (!bytes.ok()) return Answer::kNone;
  const auto directory = node::DecodeDirectory(*bytes);
  // The address may be another cluster's by now.
  if (!directory.ok() || directory->cluster_id != options_.cluster_id) return Answer::kNone;
  std::vector<node::PeerAddress> others;
  bool is_member = false;
  for (const apply::Member& member : directory->members) {
    if (member.id == options_.self.value()) {
      is_member = true;
    } else {
      others.push_back({raft::NodeId(member.id), member.peer_urls});
    }
  }
  if (!is_member) return Answer::kStranger;
  options_.others = std::move(others);
  return Answer::kMember;
}

}  // namespace conclave::app
