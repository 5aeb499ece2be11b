#include "conclave/server/failpoint/terms.h"

#include <cctype>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "conclave/base/status.h"

namespace conclave::failpoint {
namespace {

constexpr Duration kSleepMax = std::chrono::hours(24);

constexpr std::pair<std::string_view, Action> kActions[] = {{"off", Action::kOff},
                                                            {"return", Action::kReturn},
                                                            {"sleep", Action::kSleep},
                                                            {"panic", Action::kPanic},
                                                            {"print", Action::kPrint}};

}  // namespace

class Terms::Parser {
 public:
  explicit Parser(std::string_view text) : rest_(text) {}

  absl::StatusOr<std::vector<Term>> Chain() {
    std::vector<Term> chain;
    do {
      CONCLAVE_ASSIGN_OR_RETURN(Term term, OneTerm());
      chain.push_back(std::move(term));
    } while (Skip("->"));
    if (!rest_.empty()) return Wrong("expected -> or the end");
    return chain;
  }

 private:
  absl::StatusOr<Term> OneTerm() {
    Term term;
    while (!rest_.empty() && std::isdigit(static_cast<unsigned char>(rest_.front()))) {
      CONCLAVE_ASSIGN_OR_RETURN(const Modifier modifier, OneModifier());
      term.modifiers.push_back(modifier);
    }
    const auto* action = std::begin(kActions);
    while (action != std::end(kActions) && !Skip(action->first)) ++action;
    if (action == std::end(kActions)) {
      return Wrong("expected off, return, sleep, panic or print");
    }
    term.outcome.action = action->second;
    std::string value;
    bool quoted = false;
    if (Skip("(")) {
      CONCLAVE_ASSIGN_OR_RETURN(value, Value(&quoted));
      if (!Skip(")")) return Wrong("expected )");
    }
    if (action->second == Action::kSleep) {
      CONCLAVE_ASSIGN_OR_RETURN(term.outcome.sleep, SleepOf(value, quoted));
    }
    return term;
  }

  absl::StatusOr<Modifier> OneModifier() {
    const size_t end = std::min(rest_.find_first_not_of("0123456789."), rest_.size());
    const std::string number(rest_.substr(0, end));
    rest_.remove_prefix(end);
    Modifier modifier;
    if (Skip("*")) {
      modifier.is_count = true;
      if (absl::SimpleAtoi(number, &modifier.left)) return modifier;
    } else if (Skip("%")) {
      if (absl::SimpleAtod(number, &modifier.percent) && modifier.percent <= 100) return modifier;
    }
    return Wrong("expected a whole number and *, or a number up to 100 and %");
  }

  absl::StatusOr<std::string> Value(bool* quoted) {
    *quoted = Skip("\"");
    const size_t end = rest_.find(*quoted ? '"' : ')');
    if (end == std::string_view::npos) return Wrong(*quoted ? "expected \"" : "expected )");
    const std::string value(rest_.substr(0, end));
    rest_.remove_prefix(*quoted ? end + 1 : end);
    return value;
  }

  absl::StatusOr<Duration> SleepOf(const std::string& value, bool quoted) const {
    int64_t milliseconds = 0;
    absl::Duration duration;
    if (quoted) {
      if (!absl::ParseDuration(value, &duration)) return Wrong("expected a duration");
    } else if (absl::SimpleAtoi(value, &milliseconds)) {
      duration = absl::Milliseconds(milliseconds);
    } else {
      return Wrong("expected sleep(milliseconds) or sleep(\"duration\")");
    }
    if (duration < absl::ZeroDuration() || duration > absl::Nanoseconds(kSleepMax.count())) {
      return Wrong("expected a sleep of up to 24 hours");
    }
    return Duration(absl::ToInt64Nanoseconds(duration));
  }

  bool Skip(std::string_view word) {
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }

  absl::Status Wrong(std::string_view expected) const {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(expected), " before \"", std::string(rest_), "\""));
  }

  std::string_view rest_;
};

absl::StatusOr<Terms> Terms::Parse(std::string_view text) {
  if (text.size() > kTermsBytesMax) return absl::InvalidArgumentError("the terms are too long");
  Terms terms;
  terms.text_ = std::string(text);
  CONCLAVE_ASSIGN_OR_RETURN(terms.chain_, Parser(text).Chain());
  return terms;
}

Terms::Outcome Terms::Evaluate(Prng& prng) {
  constexpr uint64_t kParts = 1'000'000;
  for (Term& term : chain_) {
    bool allowed = true;
    for (Modifier& modifier : term.modifiers) {
      if (modifier.is_count) {
        allowed = modifier.left > 0;
        if (allowed) --modifier.left;
      } else {
        allowed = static_cast<double>(prng.Below(kParts)) < modifier.percent * (kParts / 100.0);
      }
      if (!allowed) break;
    }
    if (!allowed) continue;
    ++evaluations_;
    return term.outcome;
  }
  return {};
}

}  // namespace conclave::failpoint
