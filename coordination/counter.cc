#include "conclave/coordination/counter.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "conclave/base/mutant.h"
#include "conclave/client/client_impl.h"
#include "conclave/client/patience.h"
#include "conclave/coordination/names.h"

namespace conclave {
namespace counter_internal {
namespace {

constexpr size_t kShownMax = 40;

}  // namespace

absl::StatusOr<int64_t> ParseNumber(std::string_view text) {
  int64_t number = 0;
  const absl::string_view view(text.data(), text.size());
  // SimpleAtoi alone would take blanks around it as well.
  const bool plain = std::all_of(text.begin(), text.end(),
                                 [](char c) { return c == '-' || (c >= '0' && c <= '9'); });
  if (plain && absl::SimpleAtoi(view, &number)) return number;
  return absl::FailedPreconditionError(
      absl::StrCat("not a counter's value: \"", absl::CEscape(view.substr(0, kShownMax)), "\""));
}

absl::StatusOr<int64_t> Sum(int64_t value, int64_t delta) {
  int64_t sum = 0;
  if (__builtin_add_overflow(value, delta, &sum)) {
    return absl::OutOfRangeError(absl::StrCat(value, " and ", delta, " do not fit in 64 bits"));
  }
  return sum;
}

}  // namespace counter_internal

// ---- Counter
// ---------------------------------------------------------------------------------------

Counter::Counter(const Client& client, std::string_view name) : client_(client), name_(name) {}

absl::StatusOr<Counter::Reading> Counter::Read(const CallOptions& call) const {
  if (absl::Status valid = CheckName("a counter", name_); !valid.ok()) return valid;
  absl::StatusOr<std::optional<KeyValue>> key = client_.Get(name_, {}, call);
  if (!key.ok()) return key.status();
  if (!key->has_value()) return Reading{};
  absl::StatusOr<int64_t> value = counter_internal::ParseNumber((*key)->value);
  if (!value.ok()) return value.status();
  return Reading{.value = *value, .mod_revision = (*key)->mod_revision};
}

absl::StatusOr<int64_t> Counter::Get(const CallOptions& call) const {
  absl::StatusOr<Reading> reading = Read(call);
  if (!reading.ok()) return reading.status();
  return reading->value;
}

absl::Status Counter::Set(int64_t value, const CallOptions& call) {
  if (absl::Status valid = CheckName("a counter", name_); !valid.ok()) return valid;
  return client_.Put(name_, absl::StrCat(value), {}, call).status();
}

absl::StatusOr<int64_t> Counter::Add(int64_t delta, const CallOptions& call) {
  Patience patience(client_.impl(), nullptr, Patience::Bounded(*client_.impl(), call));
  for (;;) {
    absl::StatusOr<Reading> reading = Read(patience.ForCall());
    if (!reading.ok()) return reading.status();
    absl::StatusOr<int64_t> sum = counter_internal::Sum(reading->value, delta);
    if (!sum.ok()) return sum.status();
    Compare unchanged = ModRevision(name_) == reading->mod_revision;
    if (MUTANT("counter-adds-without-comparing")) unchanged = ModRevision(name_) > -1;
    absl::StatusOr<TxnResult> written = client_.Txn()
                                            .If(std::move(unchanged))
                                            .Then(Put(name_, absl::StrCat(*sum)))
                                            .Commit(patience.ForCall());
    if (!written.ok()) return written.status();
    if (written->succeeded) return *sum;
    if (absl::Status left = patience.Pause(); !left.ok()) return left;
  }
}

absl::StatusOr<bool> Counter::CompareAndSet(int64_t expected, int64_t desired,
                                            const CallOptions& call) {
  Patience patience(client_.impl(), nullptr, Patience::Bounded(*client_.impl(), call));
  for (;;) {
    absl::StatusOr<Reading> reading = Read(patience.ForCall());
    if (!reading.ok()) return reading.status();
    if (reading->value != expected) return false;
    absl::StatusOr<TxnResult> written = client_.Txn()
                                            .If(ModRevision(name_) == reading->mod_revision)
                                            .Then(Put(name_, absl::StrCat(desired)))
                                            .Commit(patience.ForCall());
    if (!written.ok()) return written.status();
    if (written->succeeded) return true;
    // Somebody wrote, perhaps the same value: look again.
    if (absl::Status left = patience.Pause(); !left.ok()) return left;
  }
}

// ---- IdRanges
// --------------------------------------------------------------------------------------

IdRanges::IdRanges(const Client& client, std::string_view name, const IdRangesOptions& options)
    : client_(client), counter_(client, name), name_(name), options_(options) {}

absl::StatusOr<IdRange> IdRanges::Allocate(int64_t count, const CallOptions& call) {
  if (count < 1 || count > kBlockMax) {
    return absl::InvalidArgumentError(absl::StrCat("a range of ids has 1 to ", kBlockMax));
  }
  if (options_.first < 0) return absl::InvalidArgumentError("the first id is not negative");
  Patience patience(client_.impl(), nullptr, Patience::Bounded(*client_.impl(), call));
  for (;;) {
    // The counter holds how many have been given away; so an absent key needs no beginning.
    absl::StatusOr<int64_t> given = counter_.Add(count, patience.ForCall());
    if (given.ok()) {
      absl::StatusOr<int64_t> end = counter_internal::Sum(*given, options_.first);
      if (!end.ok()) return end.status();
      return IdRange{.begin = *end - count, .end = *end};
    }
    if (!IsOutcomeUnknown(given.status()) && !IsRetryable(given.status())) return given.status();
    if (absl::Status left = patience.Pause(); !left.ok()) return given.status();
  }
}

absl::StatusOr<int64_t> IdRanges::Next(const CallOptions& call) {
  std::lock_guard lock(mutex_);
  if (left_.begin == left_.end) {
    absl::StatusOr<IdRange> block = Allocate(options_.block, call);
    if (!block.ok()) return block.status();
    left_ = *block;
  }
  return left_.begin++;
}

}  // namespace conclave
