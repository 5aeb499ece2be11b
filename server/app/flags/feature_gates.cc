#include "conclave/server/app/flags/feature_gates.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "conclave/server/app/flags/values.h"

namespace conclave::app {
namespace {

struct Gate {
  std::string_view name;
  const char* why_ignored;           // null: it works
  bool Config::*switched = nullptr;  // of one that works
};

// Those that work are of the first stage, so this one switches them too.
constexpr char kAllAlpha[] = "AllAlpha";

constexpr Gate kGates[] = {
    {kAllAlpha, nullptr},
    {"AllBeta", "no gate of that stage switches anything here"},
    {"CompactHashCheck", nullptr, &Config::compact_hash_check},
    {"FastLeaseKeepAlive", "a lease is kept alive without a read round anyway"},
    {"InitialCorruptCheck", "members compare their state all the time"},
    {"LeaseCheckpoint", "what is left of a lease is always replicated"},
    {"LeaseCheckpointPersist", "what is left of a lease is always kept"},
    {"SetMemberLocalAddr", "the system picks the address to call from"},
    {"StopGRPCServiceOnDefrag", nullptr, &Config::stop_grpc_service_on_defrag},
    {"TxnModeWriteWithSharedBuffer", "there is no backend file to tune here"},
};

const Gate* FindGate(std::string_view name) {
  const auto* gate = std::find_if(std::begin(kGates), std::end(kGates),
                                  [&](const Gate& each) { return each.name == name; });
  return gate == std::end(kGates) ? nullptr : gate;
}

}  // namespace

absl::Status SetFeatureGates(std::string_view value, Config* config) {
  config->feature_gates.clear();
  for (const auto& part : absl::StrSplit(std::string(value), ',')) {
    const std::string text(absl::StripAsciiWhitespace(part));
    if (text.empty()) continue;
    const size_t equals = text.find('=');
    const std::string gate = text.substr(0, equals);
    if (FindGate(gate) == nullptr) {
      return InvalidValue(absl::StrCat("unrecognized feature gate: ", gate));
    }
    if (equals == std::string::npos) {
      return InvalidValue(absl::StrCat("missing bool value for ", gate));
    }
    CONCLAVE_ASSIGN_OR_RETURN(config->feature_gates[gate], ParseBool(text.substr(equals + 1)));
  }
  return absl::OkStatus();
}

void ApplyFeatureGates(Config* config, std::vector<std::string>* warnings) {
  for (const Gate& gate : kGates) {
    if (gate.switched == nullptr) continue;
    for (const std::string_view name : {std::string_view(kAllAlpha), gate.name}) {  // it decides
      const auto said = config->feature_gates.find(std::string(name));
      if (said != config->feature_gates.end()) config->*gate.switched = said->second;
    }
  }
  for (const auto& [name, on] : config->feature_gates) {
    if (const char* why = FindGate(name)->why_ignored; why != nullptr) {
      warnings->push_back(absl::StrCat("--feature-gates: ", name, " is ignored: ", why));
    }
  }
}

}  // namespace conclave::app
