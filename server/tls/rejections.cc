#include "conclave/server/tls/rejections.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace conclave::tls {

Rejections::Rejections(std::string message, Policy::Log log)
    : message_(std::move(message)), log_(std::move(log)) {}

void Rejections::Add(Instant now, const std::string& remote, const std::string& server_name,
                     const std::string& error) {
  if (!log_) return;
  if (now - period_began_ >= kRejectionPeriod) {
    period_began_ = now;
    logged_ = 0;
  }
  if (logged_ >= kRejectionsLoggedMax) {
    ++left_out_;
    return;
  }
  ++logged_;
  Policy::Note note{
      true, message_, {{"remote-addr", remote}, {"server-name", server_name}, {"error", error}}};
  if (left_out_ > 0) {
    note.fields.emplace_back("rejected-without-a-line", absl::StrCat(std::exchange(left_out_, 0)));
  }
  log_(std::move(note));
}

std::string RemoteAddress(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return "unknown";
  char text[INET6_ADDRSTRLEN];
  if (address.ss_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address);
    inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
    return absl::StrCat(text, ":", ntohs(v4->sin_port));
  }
  if (address.ss_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address);
    inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
    return absl::StrCat("[", text, "]:", ntohs(v6->sin6_port));
  }
  return "@";
}

}  // namespace conclave::tls
