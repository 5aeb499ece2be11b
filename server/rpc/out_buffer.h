// OutBuffer: bytes on their way to a socket. Small pieces are gathered, large ones are shared and
// not copied.
#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <string_view>

#include "conclave/base/bytes.h"
#include "conclave/server/tls/stream.h"

namespace conclave::rpc {

// From this size on, sharing a piece is cheaper than copying it.
inline constexpr size_t kShareBytes = 8 * 1024;

class OutBuffer {
 public:
  void Append(std::string_view text);
  // A piece of `bytes`.
  void Append(const Bytes& bytes, size_t offset, size_t length);

  // Gives back what is kept for the next burst, if that is much, and nothing waits.
  void Trim();

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  enum class Result { kEmpty, kBlocked, kBroken };
  // Writes until nothing is left, or the socket takes no more, or the connection is broken.
  [[nodiscard]] Result WriteTo(int fd);
  // The same through TLS: kEmpty when nothing waits in the stream either.
  [[nodiscard]] Result WriteTo(tls::Stream* stream);

 private:
  // Either text of its own, or a piece of shared memory.
  struct Chunk {
    std::string text;
    Bytes shared;
    bool is_shared = false;
    std::string_view view() const { return is_shared ? shared.view() : std::string_view(text); }
  };
  std::string_view Front() const { return chunks_.front().view().substr(front_offset_); }
  void Consume(size_t count);

  std::deque<Chunk> chunks_;
  size_t front_offset_ = 0;  // already written of the first chunk
  size_t size_ = 0;
};

}  // namespace conclave::rpc
