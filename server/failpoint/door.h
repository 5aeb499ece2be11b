// The HTTP door to the failpoints, with gofail's protocol:
//
//   GET /             all of them, "name=terms" lines
//   GET /name         the terms; 404 if it is not armed
//   GET /name/count   how often a term took place
//   PUT /name         arms it with the body's terms: 204; 400 if they are wrong, 404 if it does not
//                     exist
//   PUT /failpoints   "a=terms;b=terms"
//   DELETE /name      204; 404 if it is not armed
//
// A PUT is answered before it takes effect, so that a panic does not swallow the answer. A name
// may have a path of any length before it, as gofail's names do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "conclave/server/failpoint/registry.h"

namespace conclave::failpoint {

inline constexpr size_t kBodyBytesMax = 64 << 10;

struct DoorAnswer {
  int status = 200;
  std::string body;
  std::function<void()> then;  // when the answer is sent; may be empty
};
DoorAnswer Answer(std::string_view method, std::string_view target, std::string_view body,
                  Registry* registry);

// Serves one connection after the other, on a thread of its own.
class Door {
 public:
  // `host_port` as in GOFAIL_HTTP. Unavailable: cannot listen there.
  static absl::StatusOr<std::unique_ptr<Door>> Open(std::string_view host_port, Registry* registry);
  virtual ~Door() = default;
  virtual uint16_t port() const = 0;
};

}  // namespace conclave::failpoint
