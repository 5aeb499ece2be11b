#include "conclave/server/rpc/out_buffer.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>

namespace conclave::rpc {
namespace {

constexpr size_t kVectorsMax = 64;
constexpr size_t kKeptCapacityBytes = 64 * 1024;
constexpr size_t kIdleCapacityBytes = 1024;

}  // namespace

void OutBuffer::Append(std::string_view text) {
  if (text.empty()) return;
  if (chunks_.empty() || chunks_.back().is_shared) chunks_.emplace_back();
  chunks_.back().text.append(text);
  size_ += text.size();
}

void OutBuffer::Append(const Bytes& bytes, size_t offset, size_t length) {
  if (length < kShareBytes) return Append(bytes.view().substr(offset, length));
  chunks_.push_back({{}, bytes.Slice(offset, length), true});
  size_ += length;
}

OutBuffer::Result OutBuffer::WriteTo(int fd) {
  while (size_ > 0) {
    iovec vectors[kVectorsMax];
    size_t count = 0;
    size_t offset = front_offset_;
    for (auto chunk = chunks_.begin(); chunk != chunks_.end() && count < kVectorsMax; ++chunk) {
      const std::string_view view = chunk->view().substr(offset);
      offset = 0;
      if (view.empty()) continue;
      vectors[count++] = {const_cast<char*>(view.data()), view.size()};
    }
    msghdr message{};
    message.msg_iov = vectors;
    message.msg_iovlen = count;
    const ssize_t written = sendmsg(fd, &message, MSG_NOSIGNAL);
    if (written < 0) {
      if (errno == EINTR) continue;
      return errno == EAGAIN || errno == EWOULDBLOCK ? Result::kBlocked : Result::kBroken;
    }
    Consume(static_cast<size_t>(written));
  }
  return Result::kEmpty;
}

OutBuffer::Result OutBuffer::WriteTo(tls::Stream* stream) {
  for (;;) {
    while (size_ > 0) {
      if (Front().empty()) {
        chunks_.pop_front();
        front_offset_ = 0;
        continue;
      }
      const ssize_t taken = stream->Write(Front());
      if (taken < 0) return Result::kBroken;
      if (taken == 0) break;  // full
      Consume(static_cast<size_t>(taken));
    }
    switch (stream->Flush()) {
      case tls::Stream::Flushed::kBroken:
        return Result::kBroken;
      case tls::Stream::Flushed::kBlocked:
        return Result::kBlocked;
      case tls::Stream::Flushed::kAll:
        if (size_ == 0) return Result::kEmpty;
    }
  }
}

void OutBuffer::Trim() {
  const bool keeps_much = size_ == 0 && !chunks_.empty() && !chunks_.front().is_shared &&
                          chunks_.front().text.capacity() > kIdleCapacityBytes;
  if (keeps_much) chunks_.clear();
}

void OutBuffer::Consume(size_t count) {
  size_ -= count;
  while (count > 0) {
    Chunk& front = chunks_.front();
    const size_t left = front.view().size() - front_offset_;
    if (count < left) {
      front_offset_ += count;
      return;
    }
    count -= left;
    front_offset_ = 0;
    if (chunks_.size() == 1 && !front.is_shared && front.text.capacity() <= kKeptCapacityBytes) {
      front.text.clear();  // keeps its memory for the next burst
      return;
    }
    chunks_.pop_front();
  }
}

}  // namespace conclave::rpc
