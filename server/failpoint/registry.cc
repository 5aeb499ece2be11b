#include "conclave/server/failpoint/registry.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "conclave/base/status.h"
#include "conclave/server/failpoint/names.h"

namespace conclave::failpoint {

absl::Status Registry::CheckName(std::string_view name) {
  if (std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames)) {
    return absl::OkStatus();
  }
  return absl::NotFoundError(absl::StrCat("there is no failpoint ", std::string(name)));
}

void Registry::Arm(std::string_view name, Terms terms) {
  std::lock_guard lock(mutex_);
  armed_.insert_or_assign(std::string(name), Armed{std::move(terms), ++last_generation_});
  changed_.notify_all();
}

absl::Status Registry::ArmAll(std::string_view text) {
  std::vector<std::pair<std::string, Terms>> all;
  for (const auto& part : absl::StrSplit(std::string(text), ';', absl::SkipWhitespace())) {
    const std::string one(part);
    const size_t equals = one.find('=');
    if (equals == std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat("\"", one, "\" must be name=terms"));
    }
    const std::string name = one.substr(0, equals);
    CONCLAVE_RETURN_IF_ERROR(CheckName(name));
    CONCLAVE_ASSIGN_OR_RETURN(Terms terms, Terms::Parse(one.substr(equals + 1)));
    all.emplace_back(name, std::move(terms));
  }
  for (auto& [name, terms] : all) Arm(name, std::move(terms));
  return absl::OkStatus();
}

bool Registry::Disarm(std::string_view name) {
  std::lock_guard lock(mutex_);
  const auto found = armed_.find(name);
  if (found == armed_.end()) return false;
  armed_.erase(found);
  changed_.notify_all();
  return true;
}

std::optional<std::string> Registry::TermsOf(std::string_view name) const {
  std::lock_guard lock(mutex_);
  const auto found = armed_.find(name);
  if (found == armed_.end()) return std::nullopt;
  return found->second.terms.text();
}

uint64_t Registry::EvaluationsOf(std::string_view name) const {
  std::lock_guard lock(mutex_);
  const auto found = armed_.find(name);
  return found == armed_.end() ? 0 : found->second.terms.evaluations();
}

std::string Registry::List() const {
  std::string text;
  for (const std::string_view name : kNames) {
    absl::StrAppend(&text, std::string(name), "=", TermsOf(name).value_or(""), "\n");
  }
  return text;
}

void Registry::Hit(std::string_view name) {
  std::unique_lock lock(mutex_);
  const auto found = armed_.find(name);
  if (found == armed_.end()) return;
  const uint64_t generation = found->second.generation;
  const Terms::Outcome outcome = found->second.terms.Evaluate(prng_);
  switch (outcome.action) {
    case Action::kOff:
    case Action::kReturn:
      return;
    case Action::kSleep:
      changed_.wait_for(lock, outcome.sleep, [&] {
        const auto still = armed_.find(name);
        return still == armed_.end() || still->second.generation != generation;
      });
      return;
    case Action::kPrint:
      options_.print(absl::StrCat("failpoint print: ", std::string(name)));
      return;
    case Action::kPanic:
      options_.print(absl::StrCat("failpoint panic: ", std::string(name)));
      options_.end_process();
      return;
  }
}

}  // namespace conclave::failpoint
