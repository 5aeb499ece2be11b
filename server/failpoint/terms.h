// What a failpoint does, in the language of gofail:
//
//   terms  = term { "->" term }
//   term   = { percent "%" | count "*" } action [ "(" value ")" ]
//   action = off | return | sleep | panic | print
//   value  = number | "text" | true | false
//
// At each evaluation the first term whose modifiers allow it takes place: "3*off->panic" ends the
// process the fourth time. sleep(100) counts milliseconds, sleep("1s") is a duration. There is
// nothing that return could return here: it does nothing, and counts as having taken place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "conclave/base/prng.h"
#include "conclave/base/time.h"

namespace conclave::failpoint {

inline constexpr size_t kTermsBytesMax = 4096;

enum class Action : uint8_t { kOff, kReturn, kSleep, kPanic, kPrint };

// A plain value: whoever evaluates it holds the lock.
class Terms {
 public:
  // InvalidArgument if it is not of the language; the message quotes where it stops being so.
  static absl::StatusOr<Terms> Parse(std::string_view text);

  struct Outcome {
    Action action = Action::kOff;
    Duration sleep{};
  };
  // kOff if no term takes place. `prng` decides the percentages.
  Outcome Evaluate(Prng& prng);

  const std::string& text() const { return text_; }
  uint64_t evaluations() const { return evaluations_; }  // in which a term took place

 private:
  struct Modifier {
    bool is_count = false;
    double percent = 0;
    uint64_t left = 0;
  };
  struct Term {
    std::vector<Modifier> modifiers;
    Outcome outcome;
  };
  class Parser;

  std::string text_;
  std::vector<Term> chain_;
  uint64_t evaluations_ = 0;
};

}  // namespace conclave::failpoint
