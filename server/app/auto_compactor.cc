#include "conclave/server/app/auto_compactor.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace conclave::app {
namespace {

// etcdserverpb.CompactionRequest{revision}
std::string EncodeRequest(int64_t revision) {
  std::string out("\x08");
  auto left = static_cast<uint64_t>(revision);
  for (; left >= 128; left >>= 7) out.push_back(static_cast<char>(left | 128));
  out.push_back(static_cast<char>(left));
  return out;
}

}  // namespace

AutoCompactor::AutoCompactor(const Config& config, http::Backend* backend, std::shared_ptr<Log> log)
    : mode_(config.auto_compaction_mode),
      period_(config.auto_compaction_period),
      keep_revisions_(config.auto_compaction_revisions),
      interval_(Interval(mode_, period_)),
      backend_(backend),
      log_(std::move(log)),
      thread_([this] { Run(); }) {}

AutoCompactor::~AutoCompactor() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

Duration AutoCompactor::Interval(CompactionMode mode, Duration period) {
  if (mode == CompactionMode::kRevision) return kRevisionCompactionInterval;
  return std::min<Duration>(period, std::chrono::hours(1)) / kPeriodParts;
}

void AutoCompactor::Run() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, interval_, [this] { return stopping_; })) {
    // The answer outlives neither the core nor this object: the core is stopped after the
    // compactor, and a look that is under way is waited for.
    struct Answer {
      std::mutex mutex;
      std::condition_variable arrived;
      std::shared_ptr<const node::Stats> stats;
    };
    auto answer = std::make_shared<Answer>();
    backend_->GetStats([answer](std::shared_ptr<const node::Stats> stats) {
      std::lock_guard answer_lock(answer->mutex);
      answer->stats = std::move(stats);
      answer->arrived.notify_all();
    });
    std::unique_lock answer_lock(answer->mutex);
    answer->arrived.wait_for(answer_lock, std::chrono::seconds(1),
                             [&] { return answer->stats != nullptr; });
    if (answer->stats != nullptr) Look(answer->stats->revision, answer->stats->is_leader);
  }
}

void AutoCompactor::Look(int64_t revision, bool is_leader) {
  int64_t target = 0;
  if (mode_ == CompactionMode::kRevision) {
    target = revision - keep_revisions_;
  } else {
    revisions_.push_back(revision);
    const auto looks = static_cast<size_t>(period_ / interval_);
    if (revisions_.size() <= looks) return;
    target = revisions_.front();
    revisions_.pop_front();
  }
  if (is_leader && target > 0 && target > compacted_) Compact(target);
}

void AutoCompactor::Compact(int64_t revision) {
  compacted_ = revision;
  log_->Info("starting auto compaction", {{"revision", absl::StrCat(revision)}});
  backend_->Call(node::Method::kCompact, EncodeRequest(revision),
                 [log = log_, revision](const node::Reply& reply) {
                   if (reply.error == nullptr) {
                     log->Info("completed auto compaction", {{"revision", absl::StrCat(revision)}});
                   } else {
                     log->Warn("failed auto compaction", {{"revision", absl::StrCat(revision)},
                                                          {"error", reply.error->message}});
                   }
                 });
}

}  // namespace conclave::app
