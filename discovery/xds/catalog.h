// Catalog: what an ADS server knows: which listener stands for which service, and each service's
// endpoints.
//
// Pure data, owned by one thread; the streams of a server read it when they make a response. Every
// change gives the changed entry the catalog's next version, so a stream finds out what its client
// lacks by comparing numbers, however many changes lie between.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "conclave/discovery/xds/endpoint_set.h"
#include "conclave/discovery/xds/resources.h"

namespace conclave::xds {

// Whether a byte may stand in the name of a cluster. gRPC 1.51 pastes the name into JSON as it is,
// and crashes on what breaks that.
constexpr bool IsNameByte(char c) { return c >= 0x20 && c < 0x7f && c != '"' && c != '\\'; }

class Catalog {
 public:
  struct Options {
    // Closed (the in-process server): only declared listeners exist.
    // Open (a front door for any client): listener "x" stands for service "x", declared or not,
    // unless there is something in the name that clients cannot bear (IsNameByte).
    bool open = false;
    CallPolicy policy;  // of undeclared services
  };

  struct Listener {
    std::string cluster;
    CallPolicy policy;
    uint64_t version = 0;
  };
  struct Assignment {
    EndpointSet endpoints;
    uint64_t version = 0;
  };

  Catalog() = default;
  explicit Catalog(Options options) : options_(std::move(options)) {}

  // The target `xds:///<listener>` stands for the service `cluster`. Several listeners may share
  // one.
  void Declare(std::string_view listener, std::string_view cluster, const CallPolicy& policy);
  // Forgets the listener; its clients are told that it is gone.
  void Withdraw(std::string_view listener);

  // The service's endpoints from now on. An empty set is an answer too; before the first call the
  // service is "not known yet", and clients wait.
  void SetEndpoints(std::string_view cluster, EndpointSet endpoints);
  // Back to "not known yet". Clients keep what they have.
  void ForgetEndpoints(std::string_view cluster);

  std::optional<Listener> FindListener(std::string_view listener) const;
  // The policy of a cluster is that of the listener that was declared for it last.
  struct Cluster {
    CallPolicy policy;
    uint64_t version = 0;
  };
  std::optional<Cluster> FindCluster(std::string_view cluster) const;
  const Assignment* FindEndpoints(std::string_view cluster) const;  // null: not known yet

  uint64_t version() const { return version_; }

 private:
  Options options_;
  uint64_t version_ = 1;
  struct Declared {
    Cluster cluster;
    int listeners = 0;
  };

  void LeaveCluster(const std::string& cluster);

  std::map<std::string, Listener, std::less<>> listeners_;
  std::map<std::string, Declared, std::less<>> clusters_;
  std::map<std::string, Assignment, std::less<>> assignments_;
};

}  // namespace conclave::xds
