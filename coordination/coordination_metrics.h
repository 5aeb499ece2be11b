// What the recipes of this folder count in the user's registry of metrics; docs/client.md lists
// the names. Turns that are waited for are claims, and count as those (client/claim_metrics.h).
//
// Without a registry nothing is counted. A series is looked up each time: what it counts took a
// round trip to the store. Thread-safe.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace prometheus {
class Registry;
}  // namespace prometheus

namespace conclave {

// conclave_<recipe>_events_total{name,event}
void CountEvent(const std::shared_ptr<prometheus::Registry>& registry, std::string_view recipe,
                std::string_view name, std::string_view event);

}  // namespace conclave
