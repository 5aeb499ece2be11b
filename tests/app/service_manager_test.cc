// systemd's side of the notification protocol: a datagram socket, and what comes to it.
#include "conclave/server/app/service_manager.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave {
namespace {

class NotifySocket {
 public:
  NotifySocket() {
    std::string pattern = (std::filesystem::temp_directory_path() / "notify-XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
    path_ = directory_ + "/socket";
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
    fd_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    timeval patience{20, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  ~NotifySocket() {
    close(fd_);
    std::filesystem::remove_all(directory_);
  }
  const std::string& path() const { return path_; }
  std::string directory() const { return directory_; }
  std::string Next() {
    char text[256];
    const ssize_t got = recv(fd_, text, sizeof text, 0);
    return got < 0 ? "nothing within 20 s" : std::string(text, static_cast<size_t>(got));
  }

 private:
  std::string directory_;
  std::string path_;
  int fd_ = -1;
};

TEST(ServiceManager, IsToldInOneDatagram) {
  NotifySocket socket;
  setenv("NOTIFY_SOCKET", socket.path().c_str(), 1);
  EXPECT_TRUE(app::NotifyServiceManager("READY=1"));
  EXPECT_EQ(socket.Next(), "READY=1");
  unsetenv("NOTIFY_SOCKET");
}

TEST(ServiceManager, NobodyToTellIsNoFailureButADeadSocketIs) {
  unsetenv("NOTIFY_SOCKET");
  EXPECT_TRUE(app::NotifyServiceManager("READY=1"));
  for (const std::string& path :
       {std::string("/nonexistent/socket"), std::string("relative"), "/" + std::string(300, 'x')}) {
    setenv("NOTIFY_SOCKET", path.c_str(), 1);
    EXPECT_FALSE(app::NotifyServiceManager("READY=1")) << path;
  }
  unsetenv("NOTIFY_SOCKET");
}

TEST(ServiceManager, TheServerSaysThatItIsReadyAndThatItStops) {
  auto binary = testing::ServerBinary(testing::ServerKind::kConclave);
  ASSERT_TRUE(binary.ok()) << binary.status();
  NotifySocket socket;
  const std::string client = absl::StrCat("http://127.0.0.1:", testing::FreePort());
  const std::string peer = absl::StrCat("http://127.0.0.1:", testing::FreePort());
  auto server = testing::ChildProcess::Start(
      {*binary, "--data-dir", socket.directory() + "/data", "--listen-client-urls", client,
       "--advertise-client-urls", client, "--listen-peer-urls", peer,
       "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer},
      {"NOTIFY_SOCKET=" + socket.path()});
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ(socket.Next(), "READY=1") << (*server)->Output();
  (*server)->Signal(SIGTERM);
  EXPECT_EQ(socket.Next(), "STOPPING=1");
  auto code = (*server)->Wait();
  ASSERT_TRUE(code.ok()) << code.status();
  EXPECT_EQ(*code, 0);
}

}  // namespace
}  // namespace conclave
