// OwnSocket: a way into the server for clients in this very process, who may do everything: a unix
// socket in a directory that only this user may enter, and which takes connections of this process
// alone.
//
// Thread: one of its own, for accepting.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "conclave/discovery/private_directory.h"

namespace conclave::app {

class OwnSocket {
 public:
  // Connections wait in the backlog until Start.
  //   Unavailable  there is no place for such a socket
  static absl::StatusOr<std::unique_ptr<OwnSocket>> Open();
  ~OwnSocket();
  OwnSocket(const OwnSocket&) = delete;
  OwnSocket& operator=(const OwnSocket&) = delete;

  // `take` is called on the socket's thread, and owns the descriptors.
  void Start(std::function<void(int fd)> take);

  std::string endpoint() const { return "unix://" + directory_->SocketPath(); }

 private:
  OwnSocket(std::unique_ptr<PrivateDirectory> directory, int fd)
      : directory_(std::move(directory)), fd_(fd) {}
  void Accept(const std::function<void(int fd)>& take) const;

  const std::unique_ptr<PrivateDirectory> directory_;
  const int fd_;
  std::thread thread_;
};

}  // namespace conclave::app
