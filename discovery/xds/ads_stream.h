// AdsStream: one client's aggregated discovery stream (state of the world), as a pure state
// machine.
//
//   client                                   stream
//     | LDS ["my-service"]  node               |
//     |--------------------------------------->|
//     |   LDS v7 n1 [listener, route inline]   |
//     |<---------------------------------------|
//     | LDS ["my-service"] nonce n1   (ACK)    |
//     | CDS ["my-service"]                     |
//     |--------------------------------------->|
//     |   CDS v7 n2 [cluster]                  |
//     |<---------------------------------------|
//     | CDS ... nonce n2 (ACK), EDS ["my-..."] |
//     |--------------------------------------->|
//     |   EDS v9 n3 [endpoints]                |  and again at each change of them
//     |<---------------------------------------|
//
// It keeps no queue: Next() builds the response from the catalog as it is at that moment, so a slow
// client is never owed more than one response per type, and what it gets is always the newest.
//
// Changes of endpoints that follow one another within `coalesce` are sent as one; the first change
// after a quiet time is sent at once.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "conclave/base/time.h"
#include "conclave/discovery/xds/catalog.h"

namespace conclave::xds {

class DiscoveryRequest;
class DiscoveryResponse;

class AdsStream {
 public:
  static constexpr size_t kNamesMax = 1'000;  // resources of one type that a client may ask for
  static constexpr size_t kNameBytesMax = 1'024;
  static constexpr size_t kResponseBytesMax =
      2 << 20;  // half of what a gRPC client takes; more in the next

  enum class Heard {
    kSubscription,  // the first request of a type, or changed names
    kAck,
    kNack,   // the client refused a response; `nack_detail` says why. The next change is sent as
             // usual
    kStale,  // answers a response that a newer one has replaced, with the same names
    kUnknownType,  // a type that we do not serve; the protocol says to stay silent
  };

  // Whether the client may see the endpoints of a service. Nullopt: that is not known yet, and it
  // waits. One that may not sees a service without endpoints. Null: it may see everything.
  using Sees = std::function<std::optional<bool>(const std::string& cluster)>;

  // `catalog` must outlive the stream.
  AdsStream(const Catalog* catalog, Duration coalesce, Sees sees = nullptr)
      : catalog_(catalog), coalesce_(coalesce), sees_(std::move(sees)) {}

  // InvalidArgument or ResourceExhausted: end the stream with it.
  [[nodiscard]] absl::StatusOr<Heard> OnRequest(const DiscoveryRequest& request);

  // Puts the next response into *out and returns true, or returns false if the client has (or must
  // wait for) everything. Call it when the last response has left and after each request and
  // catalog change.
  [[nodiscard]] bool Next(Instant now, DiscoveryResponse* out);

  // When Next() is worth calling again without any event; kNever if only an event can change its
  // answer.
  Instant NextDeadline() const;

  // The services whose endpoints the client wants to hear of.
  const std::set<std::string>& clusters() const { return types_[kEds].names; }
  const std::set<std::string>& listeners() const { return types_[kLds].names; }
  const std::string& nack_detail() const { return nack_detail_; }

 private:
  // In the order in which responses go out, so that nothing refers to what was not sent.
  enum Type : size_t { kLds, kCds, kEds, kTypes };

  struct TypeState {
    std::set<std::string> names;
    std::map<std::string, uint64_t>
        sent;  // name -> version that the client was sent (0: told it is absent)
    bool asked = false;
    uint64_t nonce = 0;  // of the last response of this type; 0: none yet
    Instant sent_at = Instant::min();
  };

  struct Wanted {
    bool known = true;  // false: nothing can be said yet (endpoints only)
    uint64_t version = 0;
  };

  // The version of endpoints that the client may not see, so that there are none for it.
  static constexpr uint64_t kHidden = UINT64_MAX;

  Wanted Want(Type type, const std::string& name) const;
  bool Lacks(Type type, bool* fresh) const;
  void Fill(Type type, DiscoveryResponse* out);

  const Catalog* catalog_;
  const Duration coalesce_;
  const Sees sees_;
  std::array<TypeState, kTypes> types_;
  uint64_t nonces_ = 0;
  std::string nack_detail_;
};

}  // namespace conclave::xds
