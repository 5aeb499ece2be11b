#include "conclave/server/app/journal.h"

#include <fcntl.h>
#include <spdlog/sinks/base_sink.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <mutex>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"

namespace conclave::app {
namespace {

// syslog's numbers.
int PriorityOf(spdlog::level::level_enum level) {
  switch (level) {
    case spdlog::level::trace:
    case spdlog::level::debug:
      return 7;
    case spdlog::level::info:
      return 6;
    case spdlog::level::warn:
      return 4;
    case spdlog::level::err:
      return 3;
    default:
      return 2;
  }
}

// NAME=value where a value has no line end; else NAME, its length in 8 bytes, and it.
void AppendField(std::string_view name, std::string_view value, std::string* out) {
  out->append(name);
  if (value.find('\n') == std::string_view::npos) {
    out->push_back('=');
  } else {
    out->push_back('\n');
    for (int shift = 0; shift < 64; shift += 8) {
      out->push_back(static_cast<char>((uint64_t{value.size()} >> shift) & 0xff));
    }
  }
  out->append(value);
  out->push_back('\n');
}

bool WriteAll(int fd, std::string_view data) {
  while (!data.empty()) {
    const ssize_t written = write(fd, data.data(), data.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    data.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

class JournalSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  JournalSink(int fd, const sockaddr_un& address) : fd_(fd), address_(address) {}
  ~JournalSink() override { close(fd_); }

 protected:
  void sink_it_(const spdlog::details::log_msg& line) override {
    const std::string_view text(line.payload.data(), line.payload.size());
    entry_.clear();
    AppendField("PRIORITY", std::to_string(PriorityOf(line.level)), &entry_);
    AppendField("SYSLOG_IDENTIFIER", "conclave", &entry_);
    AppendField("MESSAGE", text, &entry_);
    if (Send() || (errno == EMSGSIZE && SendAsFile())) return;
    // The one place that is left; should it be closed too, there is nobody to tell.
    (void)WriteAll(STDERR_FILENO, absl::StrCat(std::string(text), "\n"));
  }
  void flush_() override {}

 private:
  msghdr Header() {
    msghdr header{};
    header.msg_name = &address_;
    header.msg_namelen = sizeof address_;
    return header;
  }
  bool Send() {
    iovec part{entry_.data(), entry_.size()};
    msghdr header = Header();
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    return sendmsg(fd_, &header, MSG_NOSIGNAL) >= 0;
  }
  bool SendAsFile() {
    const int file = memfd_create("conclave-journal", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    if (file < 0) return false;
    bool sent =
        WriteAll(file, entry_) &&
        fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) == 0;
    if (sent) {
      alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
      msghdr header = Header();
      header.msg_control = control;
      header.msg_controllen = sizeof control;
      cmsghdr* message = CMSG_FIRSTHDR(&header);
      message->cmsg_level = SOL_SOCKET;
      message->cmsg_type = SCM_RIGHTS;
      message->cmsg_len = CMSG_LEN(sizeof file);
      std::memcpy(CMSG_DATA(message), &file, sizeof file);
      sent = sendmsg(fd_, &header, MSG_NOSIGNAL) >= 0;
    }
    close(file);
    return sent;
  }

  const int fd_;
  sockaddr_un address_;
  std::string entry_;  // kept for its capacity
};

}  // namespace

absl::StatusOr<spdlog::sink_ptr> OpenJournal(const std::string& socket_path) {
  const auto unavailable = [&](std::string_view why) {
    return absl::UnavailableError(
        absl::StrCat("no journal at ", socket_path, ": ", std::string(why)));
  };
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path) return unavailable("the path is too long");
  std::memcpy(address.sun_path, socket_path.data(), socket_path.size());
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return unavailable(std::strerror(errno));
  // Connecting is only to know that somebody is there: who restarts listens on a new socket, so
  // each entry names the address itself.
  const int probe = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const bool there = probe >= 0 && connect(probe, reinterpret_cast<const sockaddr*>(&address),
                                           sizeof address) == 0;
  const int why = errno;
  if (probe >= 0) close(probe);
  if (!there) {
    close(fd);
    return unavailable(std::strerror(why));
  }
  return std::make_shared<JournalSink>(fd, address);
}

}  // namespace conclave::app
