#include "conclave/coordination/coordination_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/registry.h>

namespace conclave {

void CountEvent(const std::shared_ptr<prometheus::Registry>& registry, std::string_view recipe,
                std::string_view name, std::string_view event) {
  if (registry == nullptr) return;
  prometheus::BuildCounter()
      .Name("conclave_" + std::string(recipe) + "_events_total")
      .Help("What this process did with each " + std::string(recipe))
      .Register(*registry)
      .Add({{"name", std::string(name)}, {"event", std::string(event)}})
      .Increment();
}

}  // namespace conclave
