// etcd's feature gates: Name=true,... of --feature-gates.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "conclave/server/app/config.h"

namespace conclave::app {

// Sets config->feature_gates. InvalidArgument: a gate that etcd does not have, or no bool.
absl::Status SetFeatureGates(std::string_view value, Config* config);

// Switches what they switch, once all is known, and warns of those that switch nothing here.
void ApplyFeatureGates(Config* config, std::vector<std::string>* warnings);

}  // namespace conclave::app
