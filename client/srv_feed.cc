#include "conclave/client/srv_feed.h"

#include <pthread.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace conclave {
namespace {

constexpr Duration kRetryBase = std::chrono::milliseconds(500);
constexpr Duration kRetryCap = std::chrono::seconds(30);

}  // namespace

SrvFeed::SrvFeed(EngineLoop& loop, std::vector<SrvTarget> targets, Duration interval,
                 OnAnswer on_answer)
    : loop_(loop),
      targets_(std::move(targets)),
      interval_(interval),
      on_answer_(std::move(on_answer)) {}

void SrvFeed::Start(Engine&) {
  std::lock_guard lock(mutex_);
  if (stopping_) return;
  if (thread_.joinable()) thread_.join();  // it ended with its answer
  thread_ = std::thread([this] {
    loop_.Post(
        [this, answer = Ask()](Engine& engine) mutable { OnAsked(engine, std::move(answer)); });
  });
  pthread_setname_np(thread_.native_handle(), "conclave-dns");
}

void SrvFeed::Stop() {
  std::thread last;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    last = std::move(thread_);
  }
  if (last.joinable()) last.join();
}

SrvFeed::Answer SrvFeed::Ask() const {
  Answer answer;
  for (const SrvTarget& target : targets_) {
    absl::StatusOr<std::vector<std::string>> found = LookupSrv(target);
    if (!found.ok()) {
      answer.status.Update(found.status());
      continue;
    }
    answer.endpoints.insert(answer.endpoints.end(), found->begin(), found->end());
  }
  return answer;
}

void SrvFeed::OnAsked(Engine& engine, Answer answer) {
  const bool complete = answer.status.ok();
  if (!complete) {
    engine.Log(known_ ? LogLevel::kInfo : LogLevel::kWarning,
               absl::StrCat("endpoints from the DNS: ", answer.status.message(),
                            known_ ? "; what was known stays" : ""));
  }
  // Half an answer is better than none, but does not replace a whole one.
  if (!answer.endpoints.empty() && (complete || !known_)) {
    known_ = true;
    on_answer_(std::move(answer.endpoints));
  }
  const Duration delay =
      complete ? interval_ : FullJitter(failures_, kRetryBase, kRetryCap, engine.prng());
  failures_ = complete ? 0 : failures_ + 1;
  engine.After(delay, [this, &engine] { Start(engine); });
}

}  // namespace conclave
