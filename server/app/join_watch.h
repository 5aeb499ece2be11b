// JoinWatch: keeps a member that joins from waiting for ever.
//
// Such a member knows the others from what one of them has told at its start, and has no state
// until their leader sends it. Should these all leave the cluster meanwhile, or move, nobody would
// ever call. So they, and those of --initial-cluster, are asked again who the members are, every
// kAskInterval, until this one has a state:
//   who still has this member in his list says where the others are now;
//   who has not any more says that it was removed before it had joined: after kDenialsMax rounds
//   without better news, for a member that lags may not have heard of it yet;
//   and when nobody has answered for kPatience, waiting is over too.
//
// Threads: one of its own, which calls back. Limits: as many questions a round as there are
// members.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "conclave/base/time.h"
#include "conclave/server/app/config.h"
#include "conclave/server/node/io.h"
#include "conclave/server/tls/policy.h"

namespace conclave::app {

class JoinWatch {
 public:
  static constexpr Duration kAskInterval = std::chrono::seconds(5);
  static constexpr Duration kPatience = std::chrono::minutes(1);
  static constexpr int kDenialsMax = 3;

  struct Options {
    raft::NodeId self;
    uint64_t cluster_id = 0;
    std::vector<std::vector<std::string>> initial;  // peer URLs of the others in --initial-cluster
    std::vector<node::PeerAddress> others;          // as they were told at the start
    tls::Policy* peer_tls = nullptr;
    // Whether the member has its state. Blocks.
    std::function<bool()> joined;
    std::function<void(std::vector<node::PeerAddress>)> met;
    std::function<void(absl::Status)> give_up;  // once; nothing is called after it
  };

  explicit JoinWatch(Options options);
  ~JoinWatch();  // nothing is called after it
  JoinWatch(const JoinWatch&) = delete;
  JoinWatch& operator=(const JoinWatch&) = delete;

 private:
  enum class Answer : uint8_t { kNone, kMember, kStranger };

  void Run();
  // True if it is to end.
  bool Wait(Duration duration);
  Answer AskAll();
  Answer Ask(const std::vector<std::string>& urls);

  Options options_;  // `others`: as they were told last
  std::mutex mutex_;
  std::condition_variable ending_changed_;
  bool ending_ = false;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace conclave::app
