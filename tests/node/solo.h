// Solo: one member with an instant log, to talk to in tests. Time stands still unless it is moved.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conclave/api/wire/writer.h"
#include "conclave/base/check.h"
#include "conclave/base/prng.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/server/auth/jwt.h"
#include "conclave/server/node/bootstrap.h"
#include "conclave/server/node/io.h"
#include "conclave/server/node/node.h"
#include "conclave/tests/node/request.h"

namespace conclave::node {

class Solo {
 public:
  static Options DefaultOptions() {
    Options options;
    options.name = "solo";
    options.client_urls = {"http://127.0.0.1:2379"};
    options.version = "3.5.0";
    options.seed = 7;
    options.bcrypt_cost = auth::kBcryptCostMin;
    return options;
  }

  explicit Solo(Options options = DefaultOptions()) : options_(std::move(options)) {
    const FoundingMember founder{options_.name, {"http://127.0.0.1:2380"}};
    const InitialCluster cluster = *FoundCluster({&founder, 1}, "token");
    options_.id = cluster.members[0].id;
    options_.cluster_id = cluster.cluster_id;
    node_ = std::make_unique<Node>(options_, FoundingState(options_, cluster), now_);
    Settle();
    CONCLAVE_CHECK(ready_, "a single member is ready at once");
  }

  // Turns until there is nothing to do at this time; the log answers at once.
  void Settle() {
    do {
      Turn();
    } while (!inputs_.empty() || node_->NextDeadline() <= now_);
  }
  void Turn() {
    effects_.Clear();
    std::vector<Input> inputs = std::exchange(inputs_, {});
    node_->Turn(now_, inputs, &effects_);
    if (effects_.append.has_value()) inputs_.push_back(LogSynced{effects_.append->batch, {}});
    for (Reply& reply : effects_.replies) {
      CONCLAVE_CHECK(replies_.emplace(reply.id.value(), std::move(reply)).second,
                     "two replies to one call");
    }
    for (StreamEffect& effect : effects_.streams) {
      streams_[effect.id.value()].push_back(std::move(effect));
    }
    for (const auth::PasswordJob& job : effects_.password_jobs) {
      ++jobs_seen_;
      auth::RandomBytes random;
      for (uint8_t& byte : random) byte = static_cast<uint8_t>(prng_.Next());
      inputs_.push_back(std::make_unique<auth::PasswordOutcome>(
          auth::RunPasswordJob(job, signer_.get(), unix_seconds(), random)));
    }
    for (StatsReply& reply : effects_.stats_replies) stats_ = reply.stats;
    for (LogLine& line : effects_.log_lines) lines_.push_back(std::move(line));
    ready_ = ready_ || effects_.ready;
    stopped_ = stopped_ || effects_.stopped;
  }
  void Put(Input input) { inputs_.push_back(std::move(input)); }
  void Advance(Duration duration) {
    const Instant end = now_ + duration;
    while (now_ < end) {
      now_ = std::min(end, std::max(node_->NextDeadline(), now_ + std::chrono::milliseconds(1)));
      Settle();
    }
  }

  uint64_t Send(Method method, std::string_view encoded, CredentialsRef shown = nullptr) {
    inputs_.push_back(
        UnaryCall{CallId(++last_call_), method, WithHeadroom(encoded), false, std::move(shown)});
    return last_call_;
  }
  // The answer to a call, if it is there.
  std::optional<Reply> Take(uint64_t call) {
    const auto found = replies_.find(call);
    if (found == replies_.end()) return std::nullopt;
    Reply reply = std::move(found->second);
    replies_.erase(found);
    return reply;
  }
  Reply Call(Method method, std::string_view encoded, CredentialsRef shown = nullptr) {
    const uint64_t call = Send(method, encoded, std::move(shown));
    Settle();
    std::optional<Reply> reply = Take(call);
    CONCLAVE_CHECK(reply.has_value(), "no answer");
    return *std::move(reply);
  }
  uint64_t OpenStream(StreamKind kind, bool require_leader = false,
                      CredentialsRef shown = nullptr) {
    inputs_.push_back(StreamOpened{CallId(++last_call_), kind, require_leader, std::move(shown)});
    return last_call_;
  }
  void Say(uint64_t stream, std::string_view encoded) {
    inputs_.push_back(StreamMessage{CallId(stream), Bytes::Copy(encoded)});
  }
  // What came on a stream since the last time.
  std::vector<StreamEffect> Heard(uint64_t stream) { return std::exchange(streams_[stream], {}); }

  Node& node() { return *node_; }
  Instant now() const { return now_; }
  bool stopped() const { return stopped_; }
  const std::vector<LogLine>& lines() const { return lines_; }
  std::shared_ptr<const Stats> TakeStats() {
    Put(StatsRequest{1});
    Settle();
    return stats_;
  }

  // Of password jobs.
  void SignTokensWith(std::shared_ptr<const auth::TokenSigner> signer) {
    signer_ = std::move(signer);
  }
  int64_t unix_seconds() const {
    return 1'700'000'000 + now_.time_since_epoch() / std::chrono::seconds(1);
  }
  size_t jobs_seen() const { return jobs_seen_; }

 private:
  Options options_;
  Prng prng_{11};
  std::shared_ptr<const auth::TokenSigner> signer_;
  size_t jobs_seen_ = 0;
  Instant now_{};
  std::unique_ptr<Node> node_;
  std::vector<Input> inputs_;
  Effects effects_;
  std::map<uint64_t, Reply> replies_;
  std::map<uint64_t, std::vector<StreamEffect>> streams_;
  std::shared_ptr<const Stats> stats_;
  std::vector<LogLine> lines_;
  uint64_t last_call_ = 0;
  bool ready_ = false;
  bool stopped_ = false;
};

}  // namespace conclave::node
