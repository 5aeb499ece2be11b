#include "conclave/discovery/picking/channel.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "conclave/base/status.h"
#include "conclave/discovery/channel.h"
#include "conclave/discovery/channel_hub.h"
#include "conclave/discovery/discovery_impl.h"
#include "conclave/discovery/picking/picking_channel.h"

namespace conclave {
namespace {

constexpr absl::Duration kSlowStartMax = absl::Hours(1);

absl::Status ValidatePercent(std::string_view name, int percent) {
  if (percent >= 0 && percent <= 100) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(name), " must be in 0..100, not ", percent));
}

absl::Status Validate(const PickingOptions& options) {
  CONCLAVE_RETURN_IF_ERROR(picking::ValidatePolicy(options.policy));
  if (options.outlier.has_value()) {
    CONCLAVE_RETURN_IF_ERROR(picking::ValidateOutlier(*options.outlier));
  }
  CONCLAVE_RETURN_IF_ERROR(SnapshotFilter::ValidateForCalls(options.filter, options.prefer_zone));
  CONCLAVE_RETURN_IF_ERROR(ValidatePercent("panic_percent", options.panic_percent));
  CONCLAVE_RETURN_IF_ERROR(ValidatePercent("zone_ready_percent", options.zone_ready_percent));
  if (options.slow_start < absl::ZeroDuration() || options.slow_start > kSlowStartMax) {
    return absl::InvalidArgumentError("slow_start must be between 0 and an hour");
  }
  if (!options.health_service.empty() && !options.health_check) {
    return absl::InvalidArgumentError("health_service is set, but not health_check");
  }
  if (options.reconnect_backoff_initial <= absl::ZeroDuration() ||
      options.reconnect_backoff_max < options.reconnect_backoff_initial ||
      options.connect_timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        "0 < reconnect_backoff_initial <= reconnect_backoff_max and 0 < connect_timeout are "
        "required");
  }
  return absl::OkStatus();
}

// Health checking is a matter of the service config, and there it takes a policy that honours it,
// which pick_first does not. The rest of the config is the application's.
absl::Status AddHealthCheck(const std::string& health_service, grpc::ChannelArguments* args) {
  nlohmann::json config = nlohmann::json::object();
  const grpc_channel_args raw = args->c_channel_args();
  for (size_t i = 0; i < raw.num_args; ++i) {
    const grpc_arg& arg = raw.args[i];
    if (std::string_view(arg.key) != GRPC_ARG_SERVICE_CONFIG || arg.type != GRPC_ARG_STRING)
      continue;
    config = nlohmann::json::parse(arg.value.string, nullptr, /*allow_exceptions=*/false);
    if (!config.is_object()) {
      return absl::InvalidArgumentError("the service config in the channel arguments is no JSON");
    }
  }
  config["healthCheckConfig"] = {{"serviceName", health_service}};
  config["loadBalancingConfig"] =
      nlohmann::json::array({{{"round_robin", nlohmann::json::object()}}});
  args->SetString(GRPC_ARG_SERVICE_CONFIG, config.dump());
  return absl::OkStatus();
}

picking::Roster::Options RosterOptions(const PickingOptions& options, const std::string& process) {
  const ServiceFilter& filter = options.filter;
  return {.by_weight = !std::holds_alternative<picking::RoundRobin>(options.policy),
          .ring = std::holds_alternative<picking::RingHash>(options.policy),
          .prefer_zone = options.prefer_zone,
          .zone_ready_percent = options.zone_ready_percent,
          .subset = filter.max_instances,
          .subset_key = filter.subset_key.empty() ? process : filter.subset_key,
          .slow_start = absl::ToChronoNanoseconds(options.slow_start),
          .outlier = options.outlier,
          .panic_percent = options.panic_percent};
}

// The picking channel, with the Discovery that its watch and its waiting channel need.
struct Dialed {
  Discovery discovery;
  picking::PickingChannel channel;
};

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ChannelInterface>> DialPicking(
    const Discovery& discovery, std::string_view service,
    const std::shared_ptr<grpc::ChannelCredentials>& credentials, const PickingOptions& options) {
  if (credentials == nullptr) {
    return absl::InvalidArgumentError(
        "DialPicking needs credentials, e.g. InsecureChannelCredentials()");
  }
  CONCLAVE_RETURN_IF_ERROR(Validate(options));
  // The roster chooses the subset: only it knows of a zone to prefer and of who serves. And calls
  // that wait for a backend had better wait for any.
  ServiceFilter filter = options.filter;
  filter.max_instances = 0;
  filter.subset_key.clear();
  CONCLAVE_ASSIGN_OR_RETURN(const Service watched, discovery.Watch(service, filter));
  DialOptions dial{.filter = filter,
                   .args = options.args,
                   .authority = options.authority,
                   .lazy = true,
                   .reconnect_backoff_initial = options.reconnect_backoff_initial,
                   .reconnect_backoff_max = options.reconnect_backoff_max,
                   .connect_timeout = options.connect_timeout,
                   .keepalive_time = options.keepalive_time,
                   .keepalive_timeout = options.keepalive_timeout};
  grpc::ChannelArguments args = ConnectionArguments(dial, watched.name());
  args.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  if (options.health_check) {
    CONCLAVE_RETURN_IF_ERROR(AddHealthCheck(options.health_service, &args));
  }
  CONCLAVE_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> waiting,
                            Dial(discovery, service, credentials, dial));
  auto dialed = std::shared_ptr<Dialed>(
      new Dialed{discovery,
                 {{.policy = options.policy,
                   .roster = RosterOptions(options, discovery.impl()->process()),
                   .health_check = options.health_check,
                   .credentials = credentials,
                   .args = std::move(args),
                   .client = discovery.impl()->client().impl()},
                  watched,
                  std::move(waiting)}});
  return std::shared_ptr<grpc::ChannelInterface>(dialed, &dialed->channel);
}

absl::StatusOr<std::shared_ptr<grpc::ChannelInterface>> DialPicking(
    const Client& client, std::string_view service,
    const std::shared_ptr<grpc::ChannelCredentials>& credentials, const PickingOptions& options) {
  return DialPicking(Discovery(client), service, credentials, options);
}

absl::StatusOr<picking::PickingStats> ChannelStats(const grpc::ChannelInterface& channel) {
  const auto* picking = dynamic_cast<const picking::PickingChannel*>(&channel);
  if (picking == nullptr) {
    return absl::InvalidArgumentError("this channel was not made by DialPicking");
  }
  return picking->Stats();
}

}  // namespace conclave
